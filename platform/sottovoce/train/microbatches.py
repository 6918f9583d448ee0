"""Which batches of a step a worker computes: the microbatches of a step are dealt out to however many workers there are.

A step has as many microbatches as the largest number of workers times the accumulated batches, so that a step's utterances
and the mean over their labels are the same with one worker as with all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sottovoce.checkpoints.run_state import Cursor
from sottovoce.errors import ConfigError
from sottovoce.schema import Example, PcmBatch, Utterance
from sottovoce.train.batches import TrainBatch


class TrainingStream(Protocol):
    """Where batches come from; ``data.dataset.SpeechStream`` is one."""

    @property
    def utterances(self) -> Sequence[Utterance]:
        """The training split."""

    @property
    def examples(self) -> Sequence[Example]:
        """What of it the model hears at once."""

    @property
    def tasks_per_worker(self) -> int | None:
        """Tasks that decode at a time for each worker; None where nothing is decoded."""

    @property
    def prefetch_batches(self) -> int | None:
        """Batches each worker holds ready; as above."""

    def steps_per_epoch(self, num_microbatches: int) -> int:
        """Give the steps of an epoch of so many batches each."""

    def fingerprint(self, *, num_microbatches: int, seed: int) -> str:
        """Identify what is read at every step."""

    def batches(
        self, *, microbatches: Sequence[int], num_microbatches: int, seed: int, first_step: int, last_step: int
    ) -> Iterator[PcmBatch]:
        """Read these microbatches of a range of steps, step by step."""


@dataclass(frozen=True)
class MicrobatchShare:
    """One worker's part of every step."""

    num_microbatches: int
    rank: int
    num_ranks: int

    @property
    def microbatches(self) -> range:
        """Those of this worker: every one that its rank and the number of workers lead to."""
        return range(self.rank, self.num_microbatches, self.num_ranks)

    @property
    def num_batches(self) -> int:
        """Batches every worker computes at a step; gradients are added up over all workers in the last of them."""
        return -(-self.num_microbatches // self.num_ranks)

    @property
    def num_empty(self) -> int:
        """Of them, those this worker has no microbatch for."""
        return self.num_batches - len(self.microbatches)


def fill_steps(batches: Iterator[TrainBatch], share: MicrobatchShare, empty: TrainBatch) -> Iterator[TrainBatch]:
    """Give a worker's batches and, where another has a microbatch more, an empty one at each step's end.

    Args:
        batches: of this worker's microbatches, whole steps.
        share: says how many a step has.
        empty: from ``Collator.empty_batch``.
    """
    while True:
        for number in range(len(share.microbatches)):
            batch = next(batches, None)
            if batch is None:
                assert number == 0, "a stream ends with a step"
                return
            yield batch
        for _ in range(share.num_empty):
            yield empty


def find_cursor(stream: TrainingStream, *, num_microbatches: int, seed: int, step: int) -> Cursor:
    """Give the cursor at a step, with the data and settings of now."""
    start = Cursor(
        epoch=0,
        step_in_epoch=0,
        steps_per_epoch=stream.steps_per_epoch(num_microbatches),
        num_microbatches=num_microbatches,
        fingerprint=stream.fingerprint(num_microbatches=num_microbatches, seed=seed),
    )
    return start.at(step)


def check_cursor(saved: Cursor | None, expected: Cursor) -> None:
    """Make sure that a resumed run reads on where it stopped: nothing twice, nothing left out.

    Args:
        saved: from the checkpoint; None where an older release wrote it, which is not checked.
        expected: the cursor at the checkpoint's step, with the data and settings of now.

    Raises:
        ConfigError: they differ: the utterances or the settings of batches have changed since.
    """
    if saved is None or saved == expected:
        return
    if saved.num_microbatches != expected.num_microbatches:
        change = f"a step had {saved.num_microbatches} batches and now has {expected.num_microbatches}"
        remedy = "set num_workers and accumulation_steps back (their product, with the most workers, must stay)"
    elif saved.steps_per_epoch != expected.steps_per_epoch:
        change = f"an epoch had {saved.steps_per_epoch} steps and now has {expected.steps_per_epoch}"
        remedy = "set the data's settings and manifests back"
    else:
        change = "the utterances of the steps are not the same"
        remedy = "set the manifests, their weights and the seed back"
    raise ConfigError(
        f"the run stopped in epoch {saved.epoch} after {saved.step_in_epoch} of {saved.steps_per_epoch} steps, but "
        f"{change}, so it cannot go on there; {remedy}, or start anew in another output folder"
    )
