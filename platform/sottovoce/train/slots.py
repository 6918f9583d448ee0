"""Which batches of a step a worker computes: the slots of a step are dealt out to however many workers there are.

A step has as many slots as the largest number of workers times the accumulated batches, so that a step's utterances
and the mean over their labels are the same with one worker as with all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sottovoce.schema import Example, PcmBatch, Utterance
from sottovoce.train.collate import TrainBatch


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

    def steps_per_epoch(self, num_slots: int) -> int:
        """Give the steps of an epoch of so many batches each."""

    def fingerprint(self, *, num_slots: int, seed: int) -> str:
        """Identify what is read at every step."""

    def batches(
        self, *, slots: Sequence[int], num_slots: int, seed: int, first_step: int, last_step: int
    ) -> Iterator[PcmBatch]:
        """Read these slots of a range of steps, step by step."""


@dataclass(frozen=True)
class SlotShare:
    """One worker's part of every step."""

    num_slots: int
    rank: int
    num_ranks: int

    @property
    def slots(self) -> range:
        """Those of this worker: every one that its rank and the number of workers lead to."""
        return range(self.rank, self.num_slots, self.num_ranks)

    @property
    def num_batches(self) -> int:
        """Batches every worker computes at a step; gradients are added up over all workers in the last of them."""
        return -(-self.num_slots // self.num_ranks)

    @property
    def num_empty(self) -> int:
        """Of them, those this worker has no slot for."""
        return self.num_batches - len(self.slots)


def fill_steps(batches: Iterator[TrainBatch], share: SlotShare, empty: TrainBatch) -> Iterator[TrainBatch]:
    """Give a worker's batches and, where another has a slot more, an empty one at each step's end.

    Args:
        batches: of this worker's slots, whole steps.
        share: says how many a step has.
        empty: from ``Collator.empty_batch``.
    """
    while True:
        for number in range(len(share.slots)):
            batch = next(batches, None)
            if batch is None:
                assert number == 0, "a stream ends with a step"
                return
            yield batch
        for _ in range(share.num_empty):
            yield empty
