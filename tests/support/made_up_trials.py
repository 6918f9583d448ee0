"""Trials nobody ran."""

from collections.abc import Sequence

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.tune.journal import Trial, TrialState
from sottovoce.tune.space import TrialSettings


def make_row(step: int, wer: float, *, loss: float = 0.5) -> EvaluationRow:
    return EvaluationRow(
        step=step, epoch=step / 10, training_loss=1.0 if step else None, validation_loss=loss, wer=wer,
        wer_low=wer - 0.01, wer_high=wer + 0.01, cer=wer / 2, seconds=2.0 * step,
    )  # fmt: skip


def make_trial(number: int, wers: Sequence[float], *, state: TrialState = "finished", **changes: object) -> Trial:
    """A trial evaluated every ten steps, the base model first."""
    return Trial.model_validate(
        {
            "number": number,
            "settings": TrialSettings(learning_rate=10.0 ** -(number + 3), warmup_steps=5),
            "state": state,
            "rows": tuple(make_row(10 * place, wer) for place, wer in enumerate(wers)),
        }
        | changes
    )
