"""Which utterances every rank reads at every step: known in advance, the same on every machine.

A step of a run is an integer from 0 on; ``step // steps_per_epoch`` is its epoch. A worker that resumes at a step
reads exactly what it would have read without the interruption.

Shapes: U utterances, W ranks, B utterances of one rank at one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import ConfigError

_JITTER = (
    0.1  # durations are sorted after a change of up to 10 %, so that batches differ between epochs; guess, untested
)


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Batches of like duration, shuffled anew in each epoch.

    Every utterance is read once in an epoch. Where the ranks do not divide their number, up to W - 1 utterances are
    read twice, so that at each step all ranks hold equally many. The batches of an epoch differ in size by at most one
    utterance: no small batch is left for the end.
    """

    durations_s: NDArray[np.float64]
    """(U,) seconds."""
    batch_size: int
    """Most utterances of one rank at one step."""
    num_ranks: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in each epoch, the same on every rank."""
        return -(-len(self.durations_s) // (self.batch_size * self.num_ranks))

    def epoch_of(self, step: int) -> int:
        """Give the epoch a step lies in."""
        return step // self.steps_per_epoch

    def batch(self, step: int, *, rank: int) -> NDArray[np.int64]:
        """Give what one rank reads at one step.

        Returns:
            (B,) places in ``durations_s``; at one step B is the same for all ranks and the durations are alike.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        return _plan_epoch(self, epoch)[place][rank :: self.num_ranks]


def build_plan(durations_s: Sequence[float], *, batch_size: int, num_ranks: int, seed: int) -> BatchPlan:
    """Plan the batches of a run.

    Raises:
        ConfigError: no utterances.
    """
    if not durations_s:
        raise ConfigError("there are no utterances to train on; check the manifest's split field")
    return BatchPlan(np.asarray(durations_s, np.float64), batch_size=batch_size, num_ranks=num_ranks, seed=seed)


@lru_cache(maxsize=4)  # a reader meets two epochs at a time at most
def _plan_epoch(plan: BatchPlan, epoch: int) -> list[NDArray[np.int64]]:
    """Give the (W * B,) utterances of each step of an epoch."""
    generator = np.random.default_rng([plan.seed, epoch])
    num_utterances = len(plan.durations_s)
    order = generator.permutation(num_utterances)
    missing = -num_utterances % plan.num_ranks
    drawn = np.concatenate([order, np.resize(order, missing)])
    jitter = generator.uniform(1.0 - _JITTER, 1.0 + _JITTER, size=len(drawn))
    by_duration = drawn[np.argsort(plan.durations_s[drawn] * jitter, kind="stable")]
    per_rank = len(drawn) // plan.num_ranks
    sizes = per_rank // plan.steps_per_epoch + (np.arange(plan.steps_per_epoch) < per_rank % plan.steps_per_epoch)
    batches = np.split(by_duration, np.cumsum(sizes * plan.num_ranks)[:-1])
    return [batches[i] for i in generator.permutation(len(batches))]
