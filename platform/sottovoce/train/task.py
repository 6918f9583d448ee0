"""The task that a run's driver hands to its workers, and the function that Ray Train calls on each of them.

Ray Train's controller imports this module. It imports neither torch nor transformers, so that the start of a run does
not wait for a model stack that the controller never uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import Example, PcmBatch, Reject, Utterance, Waveform

if TYPE_CHECKING:  # its module imports torch; see above
    from sottovoce.train.config import TrainingConfig


class TrainingStream(Protocol):
    """The source of training batches and of validation speech; ``data.dataset.SpeechStream`` is one.

    A training split may have millions of utterances: what is asked of all of them has a property of its own.
    """

    @property
    def utterances(self) -> Sequence[Utterance]:
        """The training split."""

    @property
    def kinds(self) -> Sequence[Utterance]:
        """One utterance of each language and task, with speech and without where there are both."""

    @property
    def num_speakers(self) -> int:
        """How many speakers the training split names."""

    @property
    def examples(self) -> Sequence[Example]:
        """The training split as examples: what the model reads at once."""

    @property
    def durations_s(self) -> NDArray[np.float64]:
        """(E,) seconds of each example."""

    @property
    def tasks_per_worker(self) -> int | None:
        """Tasks that decode at the same time for each worker; None if nothing is decoded."""

    @property
    def prefetch_batches(self) -> int | None:
        """Batches each worker holds ready; as above."""

    @property
    def cpus_per_task(self) -> float | None:
        """CPUs each of these tasks reserves; as above."""

    def steps_per_epoch(self, num_microbatches: int) -> int:
        """Count the steps of an epoch, at so many batches a step."""

    def fingerprint(self, *, num_microbatches: int, seed: int) -> str:
        """Identify what is read at every step."""

    def batches(
        self, *, microbatches: Sequence[int], num_microbatches: int, seed: int, first_step: int, last_step: int
    ) -> Iterator[PcmBatch]:
        """Read these microbatches of a range of steps, step by step."""

    def recordings(self, batches: Sequence[Sequence[Utterance]]) -> Iterator[Sequence[Waveform | Reject]]:
        """Decode batches of utterances as they are: the recording (S,) of each, or why it could not be read."""


@dataclass(frozen=True)
class WorkerTask:
    """All that a worker gets; it crosses processes as the only value of the loop's config.

    Ray Train puts it into the object store once; workers read the columns of stream and validation split there.
    """

    training: dict[str, Any]
    """``TrainingConfig.model_dump()``, validated again here."""
    device: Literal["cpu", "cuda"]
    precision: Literal["fp16", "bf16", "fp32"]
    stream: TrainingStream
    validation: Sequence[Utterance]
    output: Path
    board: str
    """Name of the progress board."""
    pruner: str | None = None
    """Name of the actor that decides after each evaluation whether the run goes on; None if there is none."""

    @property
    def hyperparameters(self) -> dict[str, object]:
        """What trackers record about the run."""
        return {**self.training, "device": self.device, "precision": self.precision}


def model_utterances(config: "TrainingConfig", stream: TrainingStream) -> Sequence[Utterance]:
    """Return the utterances on which the start of a model depends: all, if an adapter trains the rows of their tokens.

    Otherwise one of each kind says as much: which languages and tasks there are, and whether a text is empty.
    """
    return stream.utterances if config.trains_adapter and config.lora.token_rows else stream.kinds


def train_worker(config: dict[str, WorkerTask]) -> None:
    """Run one worker; Ray Train calls this on each."""
    from sottovoce.train.worker import run_worker  # in the worker alone; see above

    run_worker(config["task"])
