"""Which batches of a step each worker computes: the step's microbatches are divided among the workers there are.

A step has as many microbatches as the most workers times the accumulation steps. So a step's utterances and the mean
over their labels are the same with any number of workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sottovoce.checkpoints.run_state import Cursor
from sottovoce.errors import ConfigError
from sottovoce.train.batches import TrainBatch
from sottovoce.train.task import TrainingStream


@dataclass(frozen=True)
class MicrobatchShare:
    """One worker's part of every step."""

    num_microbatches: int
    rank: int
    num_ranks: int

    @property
    def microbatches(self) -> range:
        """This worker's microbatches: from its rank on, in strides of the number of workers."""
        return range(self.rank, self.num_microbatches, self.num_ranks)

    @property
    def num_batches(self) -> int:
        """Batches every worker computes at a step; the gradients of all workers are reduced in the last of them."""
        return -(-self.num_microbatches // self.num_ranks)

    @property
    def num_empty(self) -> int:
        """How many of them are empty, because this worker has fewer microbatches."""
        return self.num_batches - len(self.microbatches)


def fill_steps(batches: Iterator[TrainBatch], share: MicrobatchShare, empty: TrainBatch) -> Iterator[TrainBatch]:
    """Yield a worker's batches, with an empty one at the end of each step if other workers have one more.

    Args:
        batches: of this worker's microbatches, in whole steps.
        share: the worker's part of every step.
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
    """Compute the cursor at a step from the present data and settings."""
    start = Cursor(
        epoch=0,
        step_in_epoch=0,
        steps_per_epoch=stream.steps_per_epoch(num_microbatches),
        num_microbatches=num_microbatches,
        fingerprint=stream.fingerprint(num_microbatches=num_microbatches, seed=seed),
    )
    return start.at(step)


def check_cursor(saved: Cursor | None, expected: Cursor) -> None:
    """Check that a resumed run reads on where it stopped: nothing twice, nothing left out.

    Args:
        saved: from the checkpoint; None from an old release, which is not checked.
        expected: the cursor at the checkpoint's step, from the present data and settings.

    Raises:
        ConfigError: they differ, because the utterances or the settings of batches have changed since.
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
