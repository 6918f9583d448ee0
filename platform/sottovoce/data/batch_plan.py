"""Assign examples to the microbatches of every training step, deterministically and the same on every machine.

A step is one optimizer step, counted from 0; ``step // steps_per_epoch`` is its epoch. A step has a fixed number of
microbatches. The plan does not say which worker reads a microbatch, so a run can continue with fewer or more workers. A
run that resumes at a step reads exactly what it would have read without the interruption. Batches are not stored: step,
microbatch and seed determine a batch, so the plan for a million examples is three small tables.

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

_SPREAD = 1.1  # ratio of longest to shortest in a bucket: 5 % padding on average; guess, untested
_MIN_STEPS = 4  # of a bucket, so that batches do not always hold the same examples; an earlier plan mixed as many
_MAX_EXAMPLES = 65_536  # of a bucket: shuffling them takes 2 ms for each batch; buckets of equal durations may be split
_MAX_DENOMINATOR = 1_000  # weights are rounded to a fraction with at most this denominator: 0.333 is a third
_STEP_ORDER, _CELL_ORDER, _BATCH_ORDER = range(3)  # what a permutation is used for


@dataclass(frozen=True)
class Cell:
    """The examples of one group in one bucket.

    The fingerprint of a run hashes the ``repr`` of buckets and cells: do not rename the classes or their fields.
    """

    first: int
    """Index of its first example in the plan's ``order``."""
    size: int
    weight: Fraction
    """How often each example is read in an epoch, on average."""

    def num_sampled_before(self, epoch: int) -> int:
        """Return how many examples earlier epochs sampled; with an integer weight, every epoch samples equally many."""
        return int(epoch * self.weight * self.size)


@dataclass(frozen=True)
class Bucket:
    """Examples of similar duration."""

    first_step: int
    """Index of its first step in the epoch before steps are shuffled."""
    num_steps: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Batches of examples of similar duration, reshuffled in each epoch.

    With weight 1, every example is read once per epoch. All microbatches of a step hold examples of one bucket. The
    numbers of examples in the microbatches of a bucket differ by at most one, so no small batch is left at the end, and
    no microbatch is empty. Some examples are read once more if the limits allow only one example per microbatch, and
    either the number of examples is not a multiple of the number of microbatches or a weight is not an integer.
    """

    order: NDArray[np.int64]
    """(E,) indices of the examples, cell after cell."""
    buckets: tuple[Bucket, ...]
    num_microbatches: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in each epoch."""
        return sum(bucket.num_steps for bucket in self.buckets)

    def epoch_of(self, step: int) -> int:
        """Return the epoch of a step."""
        return step // self.steps_per_epoch

    def batch(self, step: int, *, microbatch: int) -> NDArray[np.int64]:
        """Return the examples of one microbatch of one step.

        Returns:
            (B,) indices of examples; B is at least 1.
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        unshuffled = int(_order_steps(self, epoch)[index])
        number = int(np.searchsorted([bucket.first_step for bucket in self.buckets], unshuffled, side="right")) - 1
        bucket = self.buckets[number]
        sampled = _sample_bucket(self, epoch, number)
        part = (unshuffled - bucket.first_step) * self.num_microbatches + microbatch
        num_parts = bucket.num_steps * self.num_microbatches
        return sampled[part * len(sampled) // num_parts : (part + 1) * len(sampled) // num_parts]

    def shuffled(self, num_items: int, *key: int) -> NDArray[np.int64]:
        """Return a permutation of ``num_items`` items that depends on the plan's seed and a key."""
        return np.random.default_rng([self.seed, *key]).permutation(num_items)


@dataclass(frozen=True, eq=False)
class GivenBatches:
    """Batches that are given, one a step: those of validation, whose speech is not augmented."""

    batches: tuple[NDArray[np.int64], ...]
    """(B,) indices of examples each."""
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def epoch_of(self, step: int) -> int:
        """Return 0."""
        return 0

    def batch(self, step: int, *, microbatch: int) -> NDArray[np.int64]:
        """Return the examples of a step."""
        return self.batches[step]


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
        durations_s: (E,) upper bound of each example's duration.
        batch_size: most examples in a microbatch.
        batch_s: most seconds in a microbatch; every example counts as long as the longest of its bucket.
        num_microbatches: W, the microbatches of a step.
        seed: another seed gives other batches, but the same number of steps.
        groups: (E,) index of each example's weight; None for the first weight for all.
        weights: how often the examples of each group are read in an epoch, on average: 0.25 reads another quarter in
            each of four epochs, 2 reads all of them twice.

    Raises:
        ConfigError: no examples, fewer in an epoch than microbatches in a step, or one longer than ``batch_s``.
    """
    durations = np.asarray(durations_s, np.float64)
    labels = np.zeros(len(durations), np.int64) if groups is None else np.asarray(groups, np.int64)
    if not len(durations):
        raise ConfigError("there are no utterances to train on; check the manifest's split field")
    if durations.max() > batch_s:
        raise ConfigError(f"one example takes {durations.max():g} s and batch_s is {batch_s:g}; raise batch_s to it")
    # Sorting keeps the manifest's order, speaker after speaker, among examples of equal duration: shuffle them first.
    # The shuffle is the same for every seed, because with weights the number of steps may depend on it.
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
    """Limits of one step, over all its microbatches."""

    batch_size: int
    batch_s: float
    num_microbatches: int

    def examples_per_step(self, longest_s: float) -> int:
        """Return how many examples fit into a step if the longest of them takes ``longest_s`` seconds."""
        fitting = int(self.batch_s / longest_s * (1.0 + 1e-9)) if longest_s > 0.0 else self.batch_size
        return max(1, min(self.batch_size, fitting)) * self.num_microbatches

    def count_steps(self, cells: Sequence[Cell], *, longest_s: float) -> int:
        """Return the number of steps needed for the most examples that a bucket samples in an epoch."""
        most = sum(-int(-cell.weight * cell.size // 1) for cell in cells)
        return -(-most // self.examples_per_step(longest_s))


def _cut_buckets(durations_s: NDArray[np.float64], weights: NDArray[np.float64], limits: _Limits) -> list[int]:
    """Split examples, longest first, where the next is too short for the bucket; after whole steps if possible.

    Returns:
        Index of each bucket's first example, and finally E.

    Raises:
        ConfigError: an epoch has fewer examples than a step has microbatches.
    """
    sampled = np.concatenate([[0.0], np.cumsum(weights)])
    if int(sampled[-1] + 1e-9) < limits.num_microbatches:
        raise ConfigError(
            f"{len(weights)} examples at these weights give {sampled[-1]:g} in an epoch, fewer than the "
            f"{limits.num_microbatches} batches of a step; lower num_workers or accumulation_steps, or add data"
        )
    # If the number of samples varies by one between epochs, the last one would need a further step.
    slack = 0.0 if np.all(weights % 1.0 == 0.0) else 1.0
    edges = [0]
    while edges[-1] < len(durations_s):
        start = edges[-1]
        longest_s = durations_s[start]
        per_step = limits.examples_per_step(longest_s)
        alike = int(np.searchsorted(-durations_s, -longest_s / _SPREAD, side="right"))
        num_steps = int((sampled[min(alike, start + _MAX_EXAMPLES)] - sampled[start]) / per_step + 1e-9)
        wanted = sampled[start] + max(_MIN_STEPS, num_steps) * per_step - slack
        stop = int(np.searchsorted(sampled, wanted + 1e-6, side="right")) - 1
        is_rest_small = sampled[-1] - sampled[min(stop, len(durations_s))] < _MIN_STEPS / 2 * per_step
        edges.append(len(durations_s) if is_rest_small else max(stop, start + 1))
    return edges


def _build_cells(labels: NDArray[np.int64], fractions: Sequence[Fraction], *, first: int) -> tuple[Cell, ...]:
    """Describe the runs of equal labels of one bucket."""
    groups, starts, sizes = np.unique(labels, return_index=True, return_counts=True)
    return tuple(
        Cell(first + int(start), int(size), fractions[group])
        for group, start, size in zip(groups.tolist(), starts, sizes, strict=True)
    )


@lru_cache(maxsize=4)  # a reader needs at most two epochs at a time
def _order_steps(plan: BatchPlan, epoch: int) -> NDArray[np.int64]:
    return plan.shuffled(plan.steps_per_epoch, _STEP_ORDER, epoch)


@lru_cache(maxsize=64)  # steps alternate between buckets, and there are rarely more
def _sample_bucket(plan: BatchPlan, epoch: int, number: int) -> NDArray[np.int64]:
    """Return the examples of a bucket that an epoch reads, in reading order."""
    bucket = plan.buckets[number]
    sampled = np.concatenate([_sample_cell(plan, cell, epoch) for cell in bucket.cells])
    sampled = sampled[plan.shuffled(len(sampled), _BATCH_ORDER, epoch, number)]
    first = bucket.cells[0].first
    repeated = sampled if len(sampled) else plan.order[first : first + 1]
    return np.resize(repeated, max(len(sampled), bucket.num_steps * plan.num_microbatches))


def _sample_cell(plan: BatchPlan, cell: Cell, epoch: int) -> NDArray[np.int64]:
    """Return a slice of an endless sequence of permutations: every example is sampled before any is sampled again."""
    start, stop = cell.num_sampled_before(epoch), cell.num_sampled_before(epoch + 1)
    rounds = range(start // cell.size, -(-stop // cell.size))
    endless = [plan.shuffled(cell.size, _CELL_ORDER, cell.first, number) for number in rounds]
    if not endless:
        return plan.order[:0]
    skipped = start - rounds[0] * cell.size
    return plan.order[cell.first + np.concatenate(endless)[skipped : skipped + stop - start]]
