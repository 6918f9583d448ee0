import numpy as np
import pytest
from transformers.models.whisper.generation_whisper import _dynamic_time_warping

from sottovoce.words.alignment import warp

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 50), (50, 3), (30, 30), (40, 120)]


def first_positions(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Where each row begins on a path given cell by cell."""
    return positions[np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_ties", [False, True])
def test_the_path_is_the_one_transformers_finds_cell_by_cell(shape: tuple[int, int], has_ties: bool) -> None:
    random = np.random.default_rng(shape[0])
    costs = random.standard_normal(shape)
    costs = np.round(costs) if has_ties else costs
    np.testing.assert_array_equal(warp(costs), first_positions(*_dynamic_time_warping(costs)))


def test_rows_begin_where_they_are_cheap() -> None:
    costs = np.ones((3, 12))
    costs[0, :5] = costs[1, 5:6] = costs[2, 6:] = 0.0
    np.testing.assert_array_equal(warp(costs), [0, 5, 6])


@pytest.mark.parametrize("known", [0, 4, 9])
def test_costs_that_are_no_numbers_still_give_a_path(known: int) -> None:
    costs = np.full((6, 9), np.nan)
    costs[:, :known] = 0.5
    starts = warp(costs)
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    assert starts[-1] < 9


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_the_path_is_the_one_openai_whisper_finds(shape: tuple[int, int]) -> None:
    timing = pytest.importorskip("whisper.timing", reason="openai-whisper is in the benchmarks extra")
    costs = np.random.default_rng(shape[1]).standard_normal(shape)
    np.testing.assert_array_equal(warp(costs), first_positions(*timing.dtw_cpu(costs)))
