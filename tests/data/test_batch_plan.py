from collections import Counter

import numpy as np
import pytest

from sottovoce.data.batch_plan import BatchPlan, build_plan
from sottovoce.errors import ConfigError

DURATIONS = np.random.default_rng(0).uniform(1.0, 9.0, size=101)


def plan_for(num_ranks: int = 2, *, batch_size: int = 8, seed: int = 0) -> BatchPlan:
    return build_plan(DURATIONS.tolist(), batch_size=batch_size, num_ranks=num_ranks, seed=seed)


def read_epoch(plan: BatchPlan, epoch: int) -> list[list[np.ndarray]]:
    """The batches of an epoch: one list of the ranks' batches for each step."""
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [[plan.batch(step, rank=rank) for rank in range(plan.num_ranks)] for step in steps]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_every_utterance_is_read_in_every_epoch_and_at_most_ranks_minus_one_twice(num_ranks: int) -> None:
    plan = plan_for(num_ranks)
    for epoch in range(3):
        counts = Counter(int(place) for step in read_epoch(plan, epoch) for batch in step for place in batch)
        assert set(counts) == set(range(len(DURATIONS)))
        assert sum(counts.values()) - len(DURATIONS) == -len(DURATIONS) % num_ranks
        assert max(counts.values()) <= 2


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_at_one_step_all_ranks_hold_equally_many_and_no_batch_is_small(num_ranks: int) -> None:
    sizes = [[len(batch) for batch in step] for step in read_epoch(plan_for(num_ranks), 0)]
    assert all(len(set(step)) == 1 for step in sizes)
    first = [step[0] for step in sizes]
    assert max(first) <= 8
    assert max(first) - min(first) <= 1


def test_a_batch_holds_speech_of_like_duration() -> None:
    spreads = [np.ptp(DURATIONS[np.concatenate(step)]) for step in read_epoch(plan_for(), 0)]
    assert np.mean(spreads) < 0.35 * np.ptp(DURATIONS)  # batches drawn at random spread over 0.9 of the range


def test_epochs_differ_and_the_same_seed_gives_the_same_batches() -> None:
    plan, again, other = plan_for(), plan_for(), plan_for(seed=1)
    first, second = plan.batch(0, rank=0), plan.batch(plan.steps_per_epoch, rank=0)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again.batch(0, rank=0))
    assert not np.array_equal(first, other.batch(0, rank=0))


def test_batches_of_different_length_come_mixed() -> None:
    means = [DURATIONS[np.concatenate(step)].mean() for step in read_epoch(plan_for(), 0)]
    assert means != sorted(means)


def test_a_step_names_its_epoch() -> None:
    plan = plan_for()
    assert plan.steps_per_epoch == 7
    assert [plan.epoch_of(step) for step in (0, 6, 7)] == [0, 0, 1]


def test_fewer_utterances_than_ranks_still_give_each_rank_one() -> None:
    plan = build_plan([1.0], batch_size=4, num_ranks=3, seed=0)
    assert [plan.batch(5, rank=rank).tolist() for rank in range(3)] == [[0], [0], [0]]


def test_no_utterances_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no utterances"):
        build_plan([], batch_size=4, num_ranks=2, seed=0)
