"""Which examples every microbatch of every step holds: known in advance, the same on every machine.

A step is one change of the weights, an integer from 0 on; ``step // steps_per_epoch`` is its epoch. A step has a fixed
number of microbatches, each one batch; which worker reads a microbatch is no matter of the plan, so a run may go on with fewer or
more workers. One that resumes at a step reads exactly what it would have read without the interruption. Nothing is
planned ahead: a batch follows from step, microbatch and seed, so that a plan for a million examples is three small tables.

Shapes: E examples, W microbatches, B examples of one microbatch at one step.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sottovoce.errors import ConfigError

_SPREAD = 1.1  # longest over shortest in a bucket: 5 % of a batch is padding on average; guess, untested
_MIN_STEPS = 4  # of a bucket, lest the same examples always meet; the jitter of an earlier plan mixed as many
_MAX_EXAMPLES = 65_536  # of a bucket: drawing its order takes 2 ms, for each batch; a bucket of equals may be cut
_MAX_DENOMINATOR = 1_000  # weights are taken to the nearest fraction of this: 0.333 is a third of the utterances
_STEP_ORDER, _CELL_ORDER, _BATCH_ORDER = range(3)  # what a permutation is for


@dataclass(frozen=True)
class Cell:
    """The examples of one group in one bucket."""

    first: int
    """Place in the plan's order."""
    size: int
    weight: Fraction
    """How often each is read in an epoch, on average."""

    def num_drawn_before(self, epoch: int) -> int:
        """Count what earlier epochs drew; the cells of whole weights draw equally many in each."""
        return int(epoch * self.weight * self.size)


@dataclass(frozen=True)
class Bucket:
    """Examples of like duration."""

    first_step: int
    """Place of its first step among the steps of an epoch before they are shuffled."""
    num_steps: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Batches of like duration, shuffled anew in each epoch.

    At weight 1 every example is read once in an epoch. All microbatches of a step hold examples of one bucket, and their
    numbers differ by at most one; so do those of a bucket's steps: no small batch is left for the end. No microbatch is ever
    without an example. Only where the limits leave room for a single example in a microbatch, and the examples do not divide
    by the microbatches or weights are broken, are some read once more.
    """

    order: NDArray[np.int64]
    """(E,) places of the examples, cell after cell."""
    buckets: tuple[Bucket, ...]
    num_microbatches: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in each epoch."""
        return sum(bucket.num_steps for bucket in self.buckets)

    def epoch_of(self, step: int) -> int:
        """Give the epoch a step lies in."""
        return step // self.steps_per_epoch

    def batch(self, step: int, *, microbatch: int) -> NDArray[np.int64]:
        """Give what one microbatch of one step holds.

        Returns:
            (B,) places of examples, B at least 1.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        unshuffled = int(_order_steps(self, epoch)[place])
        number = int(np.searchsorted([bucket.first_step for bucket in self.buckets], unshuffled, side="right")) - 1
        bucket = self.buckets[number]
        drawn = _draw_bucket(self, epoch, number)
        part = (unshuffled - bucket.first_step) * self.num_microbatches + microbatch
        num_parts = bucket.num_steps * self.num_microbatches
        return drawn[part * len(drawn) // num_parts : (part + 1) * len(drawn) // num_parts]

    def shuffled(self, num_items: int, *key: int) -> NDArray[np.int64]:
        """Give an order of so many items that follows from the plan's seed and a key."""
        return np.random.default_rng([self.seed, *key]).permutation(num_items)


def build_plan(
    durations_s: ArrayLike,
    *,
    batch_size: int,
    batch_s: float,
    num_microbatches: int,
    seed: int,
    groups: ArrayLike | None = None,
    weights: Sequence[float] = (1.0,),
) -> BatchPlan:
    """Plan the batches of a run.

    Args:
        durations_s: (E,) longest seconds of each example.
        batch_size: most examples of one microbatch.
        batch_s: most seconds of one microbatch, each example counted as long as the longest of its bucket.
        num_microbatches: W, the batches of a step.
        seed: another seed gives other batches, but as many steps.
        groups: (E,) place of each example's weight; all have the first when None.
        weights: how often the examples of each group are read in an epoch, on average: 0.25 reads another quarter in
            each of four epochs, 2 reads all of them twice.

    Raises:
        ConfigError: no examples, fewer than microbatches in an epoch, or one longer than ``batch_s``.
    """
    durations = np.asarray(durations_s, np.float64)
    labels = np.zeros(len(durations), np.int64) if groups is None else np.asarray(groups, np.int64)
    if not len(durations):
        raise ConfigError("there are no utterances to train on; check the manifest's split field")
    if durations.max() > batch_s:
        raise ConfigError(f"one example takes {durations.max():g} s and batch_s is {batch_s:g}; raise batch_s to it")
    # Examples of one duration keep the manifest's order when sorted, one speaker after the other: shuffle them first.
    # The same way for every seed, because the number of steps may depend on it where there are weights.
    shuffled = np.random.default_rng(0).permutation(len(durations))
    order = shuffled[np.argsort(-durations[shuffled], kind="stable")]
    fractions = [Fraction(weight).limit_denominator(_MAX_DENOMINATOR) for weight in weights]
    limits = _Limits(batch_size, batch_s, num_microbatches)
    edges = _cut_buckets(durations[order], np.asarray(fractions, np.float64)[labels[order]], limits)
    buckets: list[Bucket] = []
    for start, stop in itertools.pairwise(edges):
        longest_s = float(durations[order[start]])
        order[start:stop] = order[start:stop][np.argsort(labels[order[start:stop]], kind="stable")]
        cells = _build_cells(labels[order[start:stop]], fractions, first=start)
        first_step = buckets[-1].first_step + buckets[-1].num_steps if buckets else 0
        buckets.append(Bucket(first_step, limits.count_steps(cells, longest_s=longest_s), cells))
    return BatchPlan(order, tuple(buckets), num_microbatches=num_microbatches, seed=seed)


@dataclass(frozen=True)
class _Limits:
    """What all microbatches together hold at a step."""

    batch_size: int
    batch_s: float
    num_microbatches: int

    def examples_per_step(self, longest_s: float) -> int:
        """Count the examples of all microbatches where the longest takes so many seconds."""
        fitting = int(self.batch_s / longest_s * (1.0 + 1e-9)) if longest_s > 0.0 else self.batch_size
        return max(1, min(self.batch_size, fitting)) * self.num_microbatches

    def count_steps(self, cells: Sequence[Cell], *, longest_s: float) -> int:
        """Give the steps that hold the most a bucket draws in an epoch."""
        most = sum(-int(-cell.weight * cell.size // 1) for cell in cells)
        return -(-most // self.examples_per_step(longest_s))


def _cut_buckets(durations_s: NDArray[np.float64], weights: NDArray[np.float64], limits: _Limits) -> list[int]:
    """Cut examples, longest first, where the next is too short for the bucket, but after whole steps if possible.

    Returns:
        Where buckets start, and at last E.

    Raises:
        ConfigError: fewer than one example for each microbatch in an epoch.
    """
    drawn = np.concatenate([[0.0], np.cumsum(weights)])
    if int(drawn[-1] + 1e-9) < limits.num_microbatches:
        raise ConfigError(
            f"{len(weights)} examples at these weights give {drawn[-1]:g} in an epoch, fewer than the "
            f"{limits.num_microbatches} batches of a step; lower num_workers or accumulation_steps, or add data"
        )
    # Draws that vary by one between epochs would need a step more for the last of them.
    slack = 0.0 if np.all(weights % 1.0 == 0.0) else 1.0
    edges = [0]
    while edges[-1] < len(durations_s):
        start = edges[-1]
        longest_s = durations_s[start]
        per_step = limits.examples_per_step(longest_s)
        alike = int(np.searchsorted(-durations_s, -longest_s / _SPREAD, side="right"))
        num_steps = int((drawn[min(alike, start + _MAX_EXAMPLES)] - drawn[start]) / per_step + 1e-9)
        wanted = drawn[start] + max(_MIN_STEPS, num_steps) * per_step - slack
        stop = int(np.searchsorted(drawn, wanted + 1e-6, side="right")) - 1
        is_rest_small = drawn[-1] - drawn[min(stop, len(durations_s))] < _MIN_STEPS / 2 * per_step
        edges.append(len(durations_s) if is_rest_small else max(stop, start + 1))
    return edges


def _build_cells(labels: NDArray[np.int64], fractions: Sequence[Fraction], *, first: int) -> tuple[Cell, ...]:
    """Describe the runs of equal labels of one bucket."""
    groups, starts, sizes = np.unique(labels, return_index=True, return_counts=True)
    return tuple(
        Cell(first + int(start), int(size), fractions[group])
        for group, start, size in zip(groups.tolist(), starts, sizes, strict=True)
    )


@lru_cache(maxsize=4)  # a reader meets two epochs at a time at most
def _order_steps(plan: BatchPlan, epoch: int) -> NDArray[np.int64]:
    return plan.shuffled(plan.steps_per_epoch, _STEP_ORDER, epoch)


@lru_cache(maxsize=64)  # buckets take turns, and there are rarely more
def _draw_bucket(plan: BatchPlan, epoch: int, number: int) -> NDArray[np.int64]:
    """Give what an epoch reads of a bucket, in the order it is read."""
    bucket = plan.buckets[number]
    drawn = np.concatenate([_draw_cell(plan, cell, epoch) for cell in bucket.cells])
    drawn = drawn[plan.shuffled(len(drawn), _BATCH_ORDER, epoch, number)]
    first = bucket.cells[0].first
    repeated = drawn if len(drawn) else plan.order[first : first + 1]
    return np.resize(repeated, max(len(drawn), bucket.num_steps * plan.num_microbatches))


def _draw_cell(plan: BatchPlan, cell: Cell, epoch: int) -> NDArray[np.int64]:
    """Give a stretch of an endless row of permutations, so that each example is drawn before any is drawn again."""
    start, stop = cell.num_drawn_before(epoch), cell.num_drawn_before(epoch + 1)
    rounds = range(start // cell.size, -(-stop // cell.size))
    endless = [plan.shuffled(cell.size, _CELL_ORDER, cell.first, number) for number in rounds]
    if not endless:
        return plan.order[:0]
    skipped = start - rounds[0] * cell.size
    return plan.order[cell.first + np.concatenate(endless)[skipped : skipped + stop - start]]
