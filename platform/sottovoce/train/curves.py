"""The figures of a run, sent to wherever people watch it."""

from collections.abc import Mapping

from accelerate import Accelerator

from sottovoce.train.record import EvaluationRow

_PROJECT = "run"


class Curves:
    """A run's trackers; only the first rank writes."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def open(self) -> None:
        """Start the trackers the settings name."""
        self._accelerator.init_trackers(_PROJECT)

    def log_training(self, step: int, values: Mapping[str, float], *, learning_rate: float) -> None:
        """Send what a ``Meter`` read after a step."""
        figures = {f"train/{name}": value for name, value in values.items()}
        self._accelerator.log(figures | {"train/learning_rate": learning_rate}, step=step)

    def log_validation(self, row: EvaluationRow) -> None:
        """Send an evaluation."""
        values = {"loss": row.validation_loss, "wer": row.wer, "cer": row.cer}
        values |= {f"wer_{group.kind}_{group.name}": group.wer for group in row.groups}
        self._accelerator.log({f"validation/{name}": value for name, value in values.items()}, step=row.step)

    def close(self) -> None:
        """Let the trackers write what they still hold."""
        self._accelerator.end_training()
