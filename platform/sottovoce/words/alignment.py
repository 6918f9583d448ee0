"""Time the words of a window from cross-attention by dynamic time warping, and correct the times at pauses.

Shapes: H heads, T tokens read (prefix, text, end token), N tokens of text, P positions of sound (50 per second).
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from sottovoce.audio.silence import find_pauses
from sottovoce.schema import POSITIONS_PER_SECOND, SAMPLING_RATE, Waveform, WordTime
from sottovoce.words.long_pauses import find_long_pauses, keep_to_speech, may_hold_pauses
from sottovoce.words.word_tokens import WordTokens

_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2
_UNKNOWN = 1e6  # far above any cost, which lies within some ten standard deviations
_FILTER_WIDTH = 7  # positions, openai-whisper's: 0.14 s
_SAMPLES_PER_POSITION = SAMPLING_RATE // POSITIONS_PER_SECOND
_POSITION_S = 1 / POSITIONS_PER_SECOND
# s by which attention may miss a pause at a word's start or end. Between 0.1, best on synthetic sentences, and 0.15,
# best on joined recordings of digits (micro, 2026-11).
_PAUSE_REACH_S = 0.12
_OPENING = "\"'“¿([{-"  # punctuation that belongs to the word after it, as in openai-whisper
_CLOSING = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001 - and to the word before it


def warp(costs: NDArray[np.floating]) -> NDArray[np.int64]:
    """Find the first position of each row on the cheapest path from the first cell to the last.

    A step goes one row down, one position right, or both; a path costs the sum of its cells.

    Args:
        costs: (..., N, P), at least one row and one position. NaN counts as a very high cost.

    Returns:
        (..., N) the first position of each row; never decreasing, the first is 0.

    Source: Whisper's word times as openai-whisper 20250625 and transformers find them; checked against both in
    test_time_warping, sums in float32 as there. Cells of one anti-diagonal are independent, in all matrices at once, so
    each diagonal is one NumPy operation: 3 ms for 60 tokens and 500 positions.
    """
    *shape, num_rows, num_positions = costs.shape
    if num_positions == 1:
        return np.zeros((*shape, num_rows), dtype=np.int64)
    known = np.nan_to_num(np.asarray(costs, dtype=np.float64), nan=_UNKNOWN).reshape(-1, num_rows * num_positions)
    paths = [_trace_back(steps, num_rows, num_positions) for steps in _steps(known, num_rows, num_positions)]
    return np.stack(paths).reshape(*shape, num_rows)


def _steps(costs: NDArray[np.float64], num_rows: int, num_positions: int) -> NDArray[np.uint8]:
    """Return the last step of the cheapest path to each cell, (M, N + P + 1, N + 1), by row + position and row, from 1.

    Two diagonals of sums are kept, by row, with a border of infinity around the matrix. Among equal sums, a step to the
    right is preferred.

    Args:
        costs: (M, N * P), one matrix a row.
        num_rows: N.
        num_positions: P.
    """
    num_matrices, stride = len(costs), num_positions - 1  # neighbours on an anti-diagonal are this far apart
    steps = np.full((num_matrices, num_rows + num_positions + 1, num_rows + 1), _RIGHT, dtype=np.uint8)
    before_last, last = (np.full((num_matrices, num_rows + 1), np.inf, dtype=np.float32) for _ in range(2))
    before_last[:, 0] = 0.0
    for diagonal in range(2, num_rows + num_positions + 1):
        first, end = max(1, diagonal - num_positions), min(num_rows, diagonal - 1) + 1
        both, down, right = before_last[:, first - 1 : end - 1], last[:, first - 1 : end - 1], last[:, first:end]
        step = np.where(
            (both < down) & (both < right), _DIAGONAL, np.where((down < both) & (down < right), _DOWN, _RIGHT)
        )
        begin = diagonal - 2 + (first - 1) * stride
        cells = costs[:, begin : begin + (end - first - 1) * stride + 1 : stride]
        sums = np.full((num_matrices, num_rows + 1), np.inf, dtype=np.float32)
        sums[:, first:end] = cells + np.choose(step, (both, down, right))
        steps[:, diagonal, first:end] = step
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


def align_words(
    scores: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    words: Sequence[WordTokens],
    *,
    prefix_length: int,
    waveform: Waveform,
) -> list[WordTime]:
    """Time the words of a window with one segment; for the arguments see ``time_words`` and ``place_segments``."""
    if not words:
        return []
    starts = attended_starts(scores, prefix_length=prefix_length, num_samples=len(waveform))
    return place_segments(starts, probabilities[prefix_length - 1 :], [words], waveform=waveform)[0]


def place_segments(
    starts: NDArray[np.float64],
    probabilities: NDArray[np.float32],
    segments: Sequence[Sequence[WordTokens]],
    *,
    waveform: Waveform,
) -> list[list[WordTime]]:
    """Time the words of one window from its tokens' times, and correct them at its pauses.

    The corrections are those of ``leave_pauses_out`` and, if a word is longer than any is said, ``keep_to_speech``.

    Args:
        starts: (N + 1,) seconds at which each text token starts, and the end of the last one.
        probabilities: of the text tokens, (N,) or more.
        segments: the words of each segment; punctuation is never joined with a word of another segment.
        waveform: (S,) of the window.

    Returns:
        Each segment's words.
    """
    words = [word for segment in segments for word in segment]
    if not words:
        return [[] for _ in segments]
    timed = iter(_time_all(starts, probabilities, words))
    joined = [_join_punctuation(list(islice(timed, len(segment)))) for segment in segments]
    flat, pauses = [word for segment in joined for word in segment], find_pauses(waveform)
    if may_hold_pauses(flat):
        long = find_long_pauses(waveform, pauses)
        flat = keep_to_speech(joined, long, duration_s=len(waveform) / SAMPLING_RATE)
    moved = iter(leave_pauses_out(flat, pauses))
    return [list(islice(moved, len(segment))) for segment in joined]


def count_positions(num_samples: int) -> int:
    """Return the number of encoder positions that contain sound, not padding; at least one."""
    return max(1, num_samples // _SAMPLES_PER_POSITION)


def smooth_weights(scores: NDArray[np.float32], *, num_positions: int) -> NDArray[np.float32]:
    """Convert attention scores to weights that are comparable across heads and tokens.

    The softmax is over the positions of sound only. Each position is normalized by its mean and deviation over all
    tokens, so that a position all tokens attend to does not count. A median filter along time follows.

    Args:
        scores: (H, T, P).
        num_positions: positions of sound; the padding after them is dropped.

    Returns:
        (H, T, num_positions).
    """
    real = scores[:, :, :num_positions]
    weights = np.exp(real - real.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    deviation = weights.std(axis=1, keepdims=True)
    deviation[deviation == 0.0] = 1.0  # a position with equal weight for all tokens
    return _median_filter((weights - weights.mean(axis=1, keepdims=True)) / deviation)


def token_starts(weights: NDArray[np.float32], *, prefix_length: int) -> NDArray[np.float64]:
    """Find when each text token starts, and when the last one ends.

    Args:
        weights: (..., H, T, P) from ``smooth_weights``; they are averaged over the heads.
        prefix_length: tokens before the text; the first text token is predicted from the last of them.

    Returns:
        (..., N + 1) seconds, never decreasing; the last is the end of the last token.
    """
    steps = weights.mean(axis=-3)[..., prefix_length - 1 : -1, :]
    return warp(-steps) / POSITIONS_PER_SECOND


def time_words(
    scores: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    words: Sequence[WordTokens],
    *,
    prefix_length: int,
    num_samples: int,
) -> list[WordTime]:
    """Time the words of one window; punctuation is joined with its word and adds no time to it.

    Args:
        scores: (H, T, P) of the alignment heads, for prefix, text and end token.
        probabilities: (T - 1,) of the tokens from the second on.
        words: from ``split_words``, of the window's whole text.
        prefix_length: tokens before the text.
        num_samples: of the window.

    Returns:
        Words with text, in order; times never decrease and lie within the window.

    Source: openai-whisper 20250625, find_alignment and merge_punctuations, on the positions of sound only; checked
    against it in test_alignment.
    """
    if not words:
        return []
    starts = attended_starts(scores, prefix_length=prefix_length, num_samples=num_samples)
    return _join_punctuation(_time_all(starts, probabilities[prefix_length - 1 :], words))


def leave_pauses_out(words: Sequence[WordTime], pauses: Sequence[tuple[float, float]]) -> list[WordTime]:
    """Move the starts of words after pauses, and the ends before them.

    Attention alone assigns a pause, or a part of it, to the word before or after it: on joined recordings of digits the
    median error of starts was 0.19 s without this step and 0.01 s with it (micro, 2026-11).

    Args:
        words: timed, in order.
        pauses: start and end [s], in order.

    Returns:
        The words; times never decrease, and a word becomes longer by at most 0.12 s at each side. Of several words
        that start near the end of a pause the first one starts there, and the others stay before the next pause.
    """
    if not words:
        return []
    starts = np.array([word.start_s for word in words])
    ends = np.array([word.end_s for word in words])
    placed = np.zeros(len(words), dtype=bool)
    for begin, end in pauses:
        earliest, latest = begin - _PAUSE_REACH_S, end + _PAUSE_REACH_S
        near = np.flatnonzero((earliest <= starts) & (starts <= latest) & (end < ends) & ~placed)
        starts[near[:1]] = end
        placed[near[1:]] = True
        ends[(earliest <= ends) & (ends <= latest) & (starts < begin)] = begin
    starts = np.maximum.accumulate(starts)
    ends = np.maximum(ends, starts)
    ends[:-1] = np.minimum(ends[:-1], starts[1:])
    return [
        WordTime(word.text, float(start), float(end), word.probability)
        for word, start, end in zip(words, *_lengthen_empty(starts, ends), strict=True)
    ]


def _lengthen_empty(
    starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Let words without length last one position of the encoder, at the cost of their neighbours.

    The decoder often attends to one position for two short words. The words after are pushed later; those at the end
    are pushed back, since nothing may last longer than the last word did.
    """
    starts, ends, last_s = starts.copy(), ends.copy(), ends[-1]
    for index in range(len(starts)):
        if ends[index] <= starts[index]:
            ends[index] = starts[index] + _POSITION_S
        if index + 1 < len(starts):
            starts[index + 1] = max(starts[index + 1], ends[index])
    latest = last_s
    for index in reversed(range(len(starts))):
        ends[index] = min(ends[index], latest)
        if ends[index] <= starts[index]:
            starts[index] = max(0.0, ends[index] - _POSITION_S)
        latest = starts[index]
    return starts, ends


def attended_starts(scores: NDArray[np.float32], *, prefix_length: int, num_samples: int) -> NDArray[np.float64]:
    """Find when each text token starts from the attention of one window, on its positions of sound only.

    Args:
        scores: (H, T, P) of the alignment heads, for prefix, text and end token.
        prefix_length: tokens before the text.
        num_samples: of the window.

    Returns:
        (N + 1,) seconds within the window; the last is the end of the last token.
    """
    weights = smooth_weights(scores, num_positions=count_positions(num_samples))
    return token_starts(weights, prefix_length=prefix_length).clip(max=num_samples / SAMPLING_RATE)


def _time_all(
    starts: NDArray[np.float64], probabilities: NDArray[np.float32], words: Sequence[WordTokens]
) -> list[WordTime]:
    """Time words and separate punctuation; for ``starts`` and ``probabilities`` see ``place_segments``."""
    timed: list[WordTime] = []
    first = 0
    for word in words:
        end = first + len(word.token_ids)
        probability = float(probabilities[first:end].mean())
        timed.append(WordTime(word.text, float(starts[first]), float(starts[end]), probability))
        first = end
    return timed


def _join_punctuation(words: Sequence[WordTime]) -> list[WordTime]:
    """Join opening marks with the word after them and closing ones with the word before; then strip the texts."""
    with_opening: list[WordTime] = []
    for word in reversed(words):
        mark = word.text.strip()
        if with_opening and mark and word.text.startswith(" ") and mark in _OPENING:
            with_opening[-1] = _with_text(with_opening[-1], word.text + with_opening[-1].text)
        else:
            with_opening.append(word)
    joined: list[WordTime] = []
    for word in reversed(with_opening):
        if joined and not joined[-1].text.endswith(" ") and word.text in _CLOSING:
            joined[-1] = _with_text(joined[-1], joined[-1].text + word.text)
        else:
            joined.append(word)
    return [_with_text(word, word.text.strip()) for word in joined if word.text.strip()]


def _with_text(word: WordTime, text: str) -> WordTime:
    return WordTime(text, word.start_s, word.end_s, word.probability)


def _median_filter(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply a median filter along the last axis, mirrored at both ends; return too few positions unchanged."""
    half = _FILTER_WIDTH // 2
    if weights.shape[-1] <= half:
        return weights
    padded = np.pad(weights, ((0, 0), (0, 0), (half, half)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _FILTER_WIDTH, axis=-1)
    filtered: NDArray[np.float32] = np.partition(windows, half, axis=-1)[..., half]
    return filtered
