"""Keep words out of long pauses: attention is spread over seconds of silence, and puts words into it or across it.

Shapes: S samples, K words.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sottovoce.audio.voice_activity import USUAL_THRESHOLD, find_speech, load_voice_activity, speech_gain
from sottovoce.schema import SAMPLING_RATE, Waveform, WordTime

LONG_PAUSE_S = 0.5
"""No word contains a longer pause; the closure of a plosive and a hesitation within a word are shorter."""
_LONGEST_WORD_S = 1.0  # words last longer in 1 of 300 of real speech, and then mostly for a pause in them
_JOINED_S = 0.3  # s; a shorter silence does not end speech
_MOST_SHARED_S = 0.5  # about a word: more of it shows no better where a word belongs
# In seconds of shared time; guesses. Attention often moves on to the next word early, so that more of its time lies in
# the speech before a pause than behind it.
_NEW_STRETCH_GAIN, _BETWEEN_SEGMENTS_GAIN, _PREFERRED, _UNTOUCHED = 1.0, 0.3, 0.01, -100.0
_LATE_S = 0.45  # detected speech starts and ends up to so much late (43 stretches of real speech, 2026-12)


def may_hold_pauses(words: Sequence[WordTime]) -> bool:
    """Whether a word lasts so long that a pause may lie in it."""
    return any(word.end_s - word.start_s > _LONGEST_WORD_S for word in words)


def find_long_pauses(waveform: Waveform, short: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Find the pauses between stretches of speech with the network that detects speech.

    Levels alone do not show them: in a window that is mostly pause, or whose background changes, noise is as loud as
    the quietest speech. Where levels show the same pause, they say better when it begins and ends.

    Args:
        waveform: (S,) of the window.
        short: start and end [s] of the pauses found by level, in order.

    Returns:
        Start and end [s] of each pause of 0.5 s or more, in order; empty if nobody speaks.
    """
    blocks = load_voice_activity().probabilities(waveform, gain=speech_gain(waveform))
    speech = list(find_speech(blocks, num_samples=len(waveform), threshold=USUAL_THRESHOLD, min_silence_s=_JOINED_S))
    if not speech:
        return []
    edges = [0, *(sample for span in speech for sample in span), len(waveform)]
    gaps = [(start / SAMPLING_RATE, end / SAMPLING_RATE) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    found = [_by_level(gap, short) for gap in gaps if gap[1] > gap[0]]
    return [pause for pause in found if pause[1] - pause[0] >= LONG_PAUSE_S]


def keep_to_speech(
    segments: Sequence[Sequence[WordTime]], pauses: Sequence[tuple[float, float]], *, duration_s: float
) -> list[WordTime]:
    """Move each word into one of the stretches of speech that it touches.

    A word that touches several goes where most of it is, but no stretch is left without a word if one touches it, and a
    pause is rather between segments than in them. Speech that a word gives up belongs to its neighbour. A word that
    lies in a pause begins the next stretch or, if that leaves none without a word, ends the one before.

    Args:
        segments: timed words in order, K in all.
        pauses: start and end [s] of the long pauses, in order.
        duration_s: of the window.

    Returns:
        (K,) words; times never decrease.
    """
    edges = [0.0, *(time_s for pause in pauses for time_s in pause), duration_s]
    stretches = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]
    words = [word for segment in segments for word in segment]
    if not pauses or not stretches:
        return words
    begins = [number == 0 for segment in segments for number in range(len(segment))]
    chosen = _choose(words, begins, stretches)
    placed: list[WordTime] = []
    for index, group in groupby(range(len(words)), key=lambda number: chosen[number]):
        numbers = list(group)
        start_s, end_s = _begin(words, numbers[0], stretches[index]), _finish(words, numbers[-1], stretches[index])
        placed += _place([words[number] for number in numbers], start_s, end_s)
    return placed


def _by_level(gap: tuple[float, float], short: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Correct the start and end of a gap between detected speech by the pause by level that fills most of it."""

    def shared_s(pause: tuple[float, float]) -> float:
        return min(pause[1], gap[1]) - max(pause[0], gap[0])

    level = max(short, key=shared_s, default=gap)
    if shared_s(level) < (gap[1] - gap[0]) / 2:  # noise, of which some frames are quieter than others
        level = gap
    start_s = level[0] if abs(level[0] - gap[0]) <= _LATE_S else gap[0]
    end_s = level[1] if abs(level[1] - gap[1]) <= _LATE_S else gap[1]
    return start_s, end_s


def _choose(words: Sequence[WordTime], begins: Sequence[bool], stretches: Sequence[tuple[float, float]]) -> list[int]:
    """Choose the stretch of each word, in order, by dynamic programming; see ``keep_to_speech``.

    Args:
        words: (K,) words.
        begins: (K,) whether each is the first of its segment.
        stretches: start and end [s] of each stretch of speech.
    """
    values = np.zeros(len(stretches))
    origins: list[NDArray[np.int64]] = []
    for number, word in enumerate(words):
        new = _NEW_STRETCH_GAIN + (_BETWEEN_SEGMENTS_GAIN if begins[number] else 0.0)
        best_before = np.maximum.accumulate(values)
        last_best = np.maximum.accumulate(np.where(values == best_before, np.arange(len(values)), 0))
        moved = np.concatenate([[-np.inf], best_before[:-1] + new])  # from any earlier stretch into this one
        stays = values >= moved if number else np.ones(len(values), dtype=bool)
        origins.append(np.where(stays, np.arange(len(values)), np.concatenate([[0], last_best[:-1]])))
        values = np.where(stays, values, moved) + _gains(word, stretches)
    index = int(values.argmax())
    chosen: list[int] = []
    for origin in reversed(origins):
        chosen.append(index)
        index = int(origin[index])
    return chosen[::-1]


def _gains(word: WordTime, stretches: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return how well a word fits each stretch: the time that they share; near 0 on both sides of a word in a pause."""
    spans = np.array(stretches)
    shared = np.minimum(word.end_s, spans[:, 1]) - np.maximum(word.start_s, spans[:, 0])
    gains = np.where(shared > 0.0, np.minimum(shared, _MOST_SHARED_S), _UNTOUCHED)
    if (shared <= 0.0).all():
        after = int(np.searchsorted(spans[:, 0], word.start_s))
        gains[max(after - 1, 0) : after + 1] = 0.0
        gains[after : after + 1] = _PREFERRED
    return gains


def _begin(words: Sequence[WordTime], first: int, stretch: tuple[float, float]) -> float:
    """Return the start of the first word in a stretch: the stretch's own if the word before ran into it."""
    runs_in = first > 0 and words[first - 1].end_s > stretch[0]
    return stretch[0] if runs_in else max(words[first].start_s, stretch[0])


def _finish(words: Sequence[WordTime], last: int, stretch: tuple[float, float]) -> float:
    """Return the end of the last word in a stretch: the stretch's own if the word after began in it."""
    begins_in = last + 1 < len(words) and words[last + 1].start_s < stretch[1]
    return stretch[1] if begins_in else min(words[last].end_s, stretch[1])


def _place(words: Sequence[WordTime], start_s: float, end_s: float) -> list[WordTime]:
    """Move words into a span; those that lay before it share the time up to the first of the others."""
    num_before = sum(word.end_s <= start_s for word in words)
    end_s = max(end_s, start_s)
    free_until_s = words[num_before].start_s if num_before < len(words) else end_s
    step_s = (min(max(free_until_s, start_s), end_s) - start_s) / max(num_before, 1)
    moved: list[WordTime] = []
    for number, word in enumerate(words):
        if number < num_before:
            first_s, last_s = start_s + number * step_s, start_s + (number + 1) * step_s
        else:
            first_s, last_s = min(max(word.start_s, start_s), end_s), min(word.end_s, end_s)
        moved.append(replace(word, start_s=first_s, end_s=last_s))
    moved[0] = replace(moved[0], start_s=start_s)
    moved[-1] = replace(moved[-1], end_s=end_s)
    return moved
