"""What a run's driver hands to its workers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sottovoce.schema import Utterance
from sottovoce.train.slots import TrainingStream


@dataclass(frozen=True)
class WorkerTask:
    """All a worker is given; it crosses processes as the one value of the loop's config."""

    training: dict[str, Any]
    """``TrainingConfig.model_dump()``, validated again here."""
    device: Literal["cpu", "cuda"]
    precision: Literal["fp16", "bf16", "fp32"]
    stream: TrainingStream
    validation: tuple[Utterance, ...]
    output: Path
    board: str
    """Name of the progress board."""
    overseer: str | None = None
    """Name of who decides after each evaluation whether the run goes on; nobody where None."""

    @property
    def hyperparameters(self) -> dict[str, object]:
        """What trackers note about the run."""
        return {**self.training, "device": self.device, "precision": self.precision}
