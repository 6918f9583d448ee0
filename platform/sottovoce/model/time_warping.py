"""Dynamic time warping: the cheapest way through a matrix that never goes back.

Shapes: N rows (tokens), P positions of sound.
"""

import numpy as np
from numpy.typing import NDArray

_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2
_UNKNOWN = 1e6  # far above any cost of attention, which lies within some ten standard deviations


def warp(costs: NDArray[np.floating]) -> NDArray[np.int64]:
    """Find where each row begins on the cheapest path from the first cell to the last.

    A step goes one row down, one position on, or both; a path pays for each cell it touches.

    Args:
        costs: (N, P), at least one row and one position. Where a model gave no number (NaN), no path is cheap.

    Returns:
        (N,) the first position of each row; never decreasing, the first is 0.

    Source: Whisper's word times as openai-whisper 20250625 and transformers find them; checked against both in
    test_time_warping, sums in float32 as there. Cells of one anti-diagonal do not depend on each other, so a diagonal
    is one NumPy operation: 3 ms for 60 tokens and 500 positions.
    """
    num_rows, num_positions = costs.shape
    if num_positions == 1:
        return np.zeros(num_rows, dtype=np.int64)
    known = np.nan_to_num(np.asarray(costs, dtype=np.float64), nan=_UNKNOWN)
    return _trace_back(_steps(known), num_rows, num_positions)


def _steps(costs: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Give the last step of the cheapest path to each cell, (N + P + 1, N + 1): by row + position and row, from 1 on.

    Two diagonals of sums are kept, by row, with a border of infinity around the matrix; of equal sums a step to the
    right is taken first.
    """
    num_rows, num_positions = costs.shape
    flat, stride = costs.ravel(), num_positions - 1  # neighbours on an anti-diagonal are this far apart
    steps = np.full((num_rows + num_positions + 1, num_rows + 1), _RIGHT, dtype=np.uint8)
    before_last, last = (np.full(num_rows + 1, np.inf, dtype=np.float32) for _ in range(2))
    before_last[0] = 0.0
    for diagonal in range(2, num_rows + num_positions + 1):
        first, end = max(1, diagonal - num_positions), min(num_rows, diagonal - 1) + 1
        both, down, right = before_last[first - 1 : end - 1], last[first - 1 : end - 1], last[first:end]
        step = np.where(
            (both < down) & (both < right), _DIAGONAL, np.where((down < both) & (down < right), _DOWN, _RIGHT)
        )
        begin = diagonal - 2 + (first - 1) * stride
        cells = flat[begin : begin + (end - first - 1) * stride + 1 : stride]
        sums = np.full(num_rows + 1, np.inf, dtype=np.float32)
        sums[first:end] = cells + np.choose(step, (both, down, right))
        steps[diagonal, first:end] = step
        before_last, last = last, sums
    return steps


def _trace_back(steps: NDArray[np.uint8], num_rows: int, num_positions: int) -> NDArray[np.int64]:
    starts = np.zeros(num_rows, dtype=np.int64)
    row, position = num_rows, num_positions
    while row > 1:
        step = steps[row + position, row]
        starts[row - 1] = position - 1
        if step != _RIGHT:
            row -= 1
        if step != _DOWN:
            position -= 1
    return starts
