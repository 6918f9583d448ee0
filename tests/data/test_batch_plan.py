import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from sottovoce.data.batch_plan import BatchPlan, build_plan
from sottovoce.errors import ConfigError

DURATIONS = np.random.default_rng(0).uniform(1.0, 9.0, size=401)
MICROBATCHES = pytest.mark.parametrize("num_microbatches", [1, 2, 3, 7])


def plan_for(
    num_microbatches: int = 2,
    *,
    batch_size: int = 8,
    batch_s: float = 40.0,
    seed: int = 0,
    durations_s: object = DURATIONS,
) -> BatchPlan:
    return build_plan(durations_s, batch_size=batch_size, batch_s=batch_s, num_microbatches=num_microbatches, seed=seed)  # type: ignore[arg-type]


def mixed_plan(
    sizes: Sequence[int], weights: Sequence[float], *, num_microbatches: int = 2, batch_size: int = 8
) -> BatchPlan:
    """Corpora of these sizes, of 1 to 9 s."""
    durations = np.random.default_rng(1).uniform(1.0, 9.0, size=sum(sizes))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return build_plan(
        durations,
        batch_size=batch_size,
        batch_s=1e3,
        num_microbatches=num_microbatches,
        seed=0,
        groups=groups,
        weights=weights,
    )


def read_epoch(plan: BatchPlan, epoch: int) -> list[list[np.ndarray]]:
    """The batches of an epoch: one list of the microbatches' batches for each step."""
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [[plan.batch(step, microbatch=microbatch) for microbatch in range(plan.num_microbatches)] for step in steps]


def count_reads(plan: BatchPlan, epochs: Sequence[int], num_examples: int) -> np.ndarray:
    counts = np.zeros(num_examples, np.int64)
    for epoch in epochs:
        for step in read_epoch(plan, epoch):
            np.add.at(counts, np.concatenate(step), 1)
    return counts


@MICROBATCHES
def test_every_example_is_read_exactly_once_in_every_epoch(num_microbatches: int) -> None:
    plan = plan_for(num_microbatches)
    for epoch in range(3):
        assert set(count_reads(plan, [epoch], len(DURATIONS))) == {1}


@MICROBATCHES
@pytest.mark.parametrize(("batch_size", "batch_s"), [(8, 1e3), (64, 40.0), (8, 40.0)])
def test_no_batch_exceeds_either_limit_and_none_is_empty(
    num_microbatches: int, batch_size: int, batch_s: float
) -> None:
    plan = plan_for(num_microbatches, batch_size=batch_size, batch_s=batch_s)
    for step in read_epoch(plan, 0) + read_epoch(plan, 1):
        for batch in step:
            assert 1 <= len(batch) <= batch_size
            assert DURATIONS[batch].max() * len(batch) <= batch_s + 1e-6


def test_batches_by_seconds_are_nearly_full() -> None:
    plan = plan_for(2, batch_size=1_000, batch_s=80.0)
    seconds = [DURATIONS[batch].max() * len(batch) for step in read_epoch(plan, 0) for batch in step]
    assert np.mean(seconds) > 0.8 * 80.0


@MICROBATCHES
def test_at_one_step_microbatches_differ_by_at_most_one_example_of_like_duration(num_microbatches: int) -> None:
    for step in read_epoch(plan_for(num_microbatches), 0):
        sizes = [len(batch) for batch in step]
        assert max(sizes) - min(sizes) <= 1
        spread = DURATIONS[np.concatenate(step)]
        assert spread.max() - spread.min() < 0.5 * np.ptp(DURATIONS)


def test_a_large_corpus_is_padded_by_less_than_six_percent() -> None:
    durations = np.clip(np.random.default_rng(2).lognormal(np.log(5.0), 0.5, 20_000), 0.3, 30.0)
    plan = plan_for(2, batch_size=16, batch_s=480.0, durations_s=durations)
    batches = [batch for step in read_epoch(plan, 0) for batch in step]
    padded_s = sum(durations[batch].max() * len(batch) for batch in batches)
    assert durations.sum() / padded_s > 0.94
    assert len(batches) <= 1.01 * len(durations) / 16 + 2


def test_the_number_of_steps_is_the_same_for_every_seed_and_epochs_follow_each_other() -> None:
    plan = plan_for()
    assert {plan_for(seed=seed).steps_per_epoch for seed in range(5)} == {plan.steps_per_epoch}
    steps = (0, plan.steps_per_epoch - 1, plan.steps_per_epoch)
    assert [plan.epoch_of(step) for step in steps] == [0, 0, 1]


def test_epochs_differ_and_the_same_seed_gives_the_same_batches() -> None:
    plan, again, other = plan_for(), plan_for(), plan_for(seed=1)
    first, second = plan.batch(0, microbatch=0), plan.batch(plan.steps_per_epoch, microbatch=0)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again.batch(0, microbatch=0))
    assert not np.array_equal(first, other.batch(0, microbatch=0))


def test_a_step_read_alone_equals_the_step_read_in_order() -> None:
    in_turn = [batch.tolist() for step in read_epoch(plan_for(), 2) for batch in step]
    fresh = plan_for()
    first = 2 * fresh.steps_per_epoch
    backwards = [fresh.batch(first + i // 2, microbatch=i % 2).tolist() for i in reversed(range(len(in_turn)))]
    assert backwards[::-1] == in_turn


def test_the_same_examples_are_not_always_in_one_batch() -> None:
    plan = plan_for()
    together = Counter(
        frozenset(batch.tolist()) for epoch in range(4) for step in read_epoch(plan, epoch) for batch in step
    )
    assert max(together.values()) == 1


def test_batches_of_different_length_come_mixed() -> None:
    means = np.array([DURATIONS[np.concatenate(step)].mean() for step in read_epoch(plan_for(), 0)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_examples_of_one_duration_come_mixed() -> None:
    plan = plan_for(1, batch_s=1e9, durations_s=np.full(800, 30.0))
    assert np.mean([np.ptp(batch) for (batch,) in read_epoch(plan, 0)]) > 0.5 * 800


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.2, 1 / 3])
@pytest.mark.parametrize("sizes", [(97, 203), (400, 33), (31, 1_000)])
def test_over_the_inverse_of_its_weight_a_corpus_is_read_exactly_once(weight: float, sizes: tuple[int, int]) -> None:
    plan = mixed_plan(sizes, (1.0, weight))
    num_epochs = round(1 / weight)
    for first in (0, num_epochs):
        counts = count_reads(plan, range(first, first + num_epochs), sum(sizes))
        assert set(counts[: sizes[0]]) == {num_epochs}
        assert set(counts[sizes[0] :]) == {1}


def test_weight_one_quarter_reads_another_quarter_in_each_epoch_and_misses_no_example() -> None:
    plan = mixed_plan((100, 400), (1.0, 0.25))
    sizes = [int((count_reads(plan, [epoch], 500)[100:] > 0).sum()) for epoch in range(4)]
    assert all(80 <= size <= 120 for size in sizes)
    assert sum(sizes) == 400


def test_weight_two_reads_a_corpus_twice_in_every_epoch() -> None:
    counts = count_reads(mixed_plan((60, 90), (2.0, 1.0)), [3], 150)
    assert set(counts[:60]) == {2}
    assert set(counts[60:]) == {1}


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("weights", [(0.3, 0.7, 1.1), (0.07, 0.5, 1.0)])
def test_with_any_weights_steps_stay_the_same_and_no_microbatch_is_without_examples(
    batch_size: int, weights: tuple[float, ...]
) -> None:
    plan = mixed_plan((50, 120, 77), weights, num_microbatches=3, batch_size=batch_size)
    for epoch in range(5):
        for step in read_epoch(plan, epoch):
            assert all(1 <= len(batch) <= batch_size for batch in step)
    counts = count_reads(plan, range(20), 247)
    reads = np.array([group.mean() for group in np.split(counts, [50, 170])])
    surplus = 1.3 if batch_size == 1 else 1.0  # see BatchPlan
    assert reads / reads[2] == pytest.approx(np.array(weights) / weights[2], rel=0.1, abs=0.01)
    assert 0.9 * 20 * weights[2] <= reads[2] <= 1.1 * surplus * 20 * weights[2]


def test_corpora_are_mixed_within_batches() -> None:
    plan = mixed_plan((400, 400), (1.0, 1.0))
    shares = [np.mean(batch < 400) for step in read_epoch(plan, 0) for batch in step]
    assert np.mean([0.0 < share < 1.0 for share in shares]) > 0.95


def test_with_room_for_one_example_every_microbatch_still_holds_one() -> None:
    plan = plan_for(2, batch_size=1, durations_s=np.linspace(1.0, 2.0, 5))
    counts = count_reads(plan, [0], 5)
    assert plan.steps_per_epoch == 3
    assert sorted(counts) == [1, 1, 1, 1, 2]


def test_a_million_examples_are_planned_in_seconds() -> None:
    durations = np.clip(np.random.default_rng(3).lognormal(np.log(5.0), 0.6, 1_000_000), 0.3, 30.0)
    started = time.process_time()  # what others do on this machine does not count
    plan = plan_for(4, batch_size=64, batch_s=480.0, durations_s=durations)
    sizes = [len(plan.batch(step, microbatch=3)) for step in range(0, plan.steps_per_epoch, 100)]
    assert time.process_time() - started < 5.0  # 0.6 s on one core of the machine this was written on
    assert min(sizes) >= 1
    assert len(plan.buckets) < 100


def test_no_utterances_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no utterances"):
        plan_for(durations_s=[])


def test_fewer_examples_than_microbatches_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="fewer than the 3 batches of a step"):
        plan_for(3, durations_s=[1.0, 2.0])


def test_an_example_beyond_the_seconds_of_a_batch_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="raise batch_s"):
        plan_for(1, batch_s=8.0)
