from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import find_pauses
from sottovoce.schema import SAMPLING_RATE, WordTime
from sottovoce.words.alignment import place_segments
from sottovoce.words.long_pauses import find_long_pauses, keep_to_speech, may_hold_pauses
from sottovoce.words.word_tokens import WordTokens

Times = list[tuple[float, float]]
TOLERANCE_S = 0.12


def kept(times: Times, pauses: Times, *, duration_s: float = 10.0) -> Times:
    """In one segment."""
    words = [WordTime("a", start, end, 1.0) for start, end in times]
    return [(word.start_s, word.end_s) for word in keep_to_speech([words], pauses, duration_s=duration_s)]


@pytest.fixture(scope="module")
def slow_digits(shared_data: Path) -> tuple[np.ndarray, list[float]]:
    """Three digits of one speaker with 3 s of room noise before each and after the last, and where they begin [s]."""
    random = np.random.default_rng(0)
    parts, starts = [], []
    for digit, level in ((7, 0.001), (2, 0.004), (9, 0.002)):
        parts += [level * random.standard_normal(3 * SAMPLING_RATE).astype(np.float32)]
        starts.append(sum(map(len, parts)) / SAMPLING_RATE)
        parts += [read_audio(shared_data / "fsdd" / "test" / f"{digit}_jackson_0.wav")]
    return np.concatenate([*parts, parts[0]]), starts


def test_a_word_across_a_pause_stays_where_most_of_it_is_said() -> None:
    around = (0.0, 0.2), (6.8, 7.0)
    assert kept([around[0], (0.7, 6.5), around[1]], [(1.0, 6.0)]) == [(0.0, 1.0), (6.0, 6.5), (6.8, 7.0)]
    assert kept([around[0], (0.4, 6.1), around[1]], [(1.0, 6.0)]) == [(0.0, 0.2), (0.4, 1.0), (6.0, 7.0)]


def test_the_word_before_gets_the_speech_that_a_word_gives_up() -> None:
    assert kept([(0.3, 0.7), (0.7, 6.5)], [(1.0, 6.0)]) == [(0.3, 1.0), (6.0, 6.5)]


def test_every_stretch_of_speech_gets_a_word_that_touches_it() -> None:
    pauses = [(0.0, 1.0), (1.6, 6.0), (6.5, 10.0)]
    early = [(0.1, 1.2), (1.2, 6.1), (6.1, 10.1)]  # attention has moved on before each word ends
    assert kept(early, pauses, duration_s=10.4) == [(1.0, 1.6), (6.0, 6.5), (10.0, 10.1)]
    late = [(0.1, 6.2), (6.2, 10.2), (10.2, 10.4)]
    assert kept(late, pauses, duration_s=10.4) == [(1.0, 1.6), (6.0, 6.5), (10.0, 10.4)]


def test_a_word_at_a_pause_between_segments_stays_in_its_own_segments_speech() -> None:
    words = [WordTime(text, *times, 1.0) for text, times in (("chemical", (5.0, 5.2)), ("is.", (5.2, 13.5)))]
    following = [WordTime("Many", 13.5, 13.9, 1.0)]
    moved = keep_to_speech([words, following], [(5.5, 13.05)], duration_s=15.0)
    assert [(word.start_s, word.end_s) for word in moved] == [(5.0, 5.2), (5.2, 5.5), (13.05, 13.9)]


def test_a_word_in_a_pause_goes_to_the_speech_beside_it() -> None:
    assert kept([(0.0, 1.6), (1.6, 4.0), (6.8, 7.0)], [(0.0, 6.0)]) == [
        pytest.approx((6.0, 6.4)),
        pytest.approx((6.4, 6.8)),
        pytest.approx((6.8, 7.0)),
    ]
    assert kept([(0.0, 1.0), (3.0, 4.0)], [(2.0, 10.0)]) == [(0.0, 1.0), (2.0, 2.0)]


def test_words_in_speech_and_windows_without_pauses_are_left_alone() -> None:
    times = [(0.1, 0.5), (0.5, 0.9), (6.1, 7.0)]
    assert kept(times, [(1.0, 6.0)]) == times
    assert kept([(0.0, 9.0)], []) == [(0.0, 9.0)]
    assert kept([(0.0, 9.0)], [(0.0, 10.0)]) == [(0.0, 9.0)]


@pytest.mark.parametrize("seed", range(20))
def test_times_never_decrease_and_lie_in_no_pause(seed: int) -> None:
    random = np.random.default_rng(seed)
    edges = np.sort(random.uniform(0.0, 30.0, 2 * int(random.integers(1, 6))))
    pauses = [(float(start), float(end)) for start, end in edges.reshape(-1, 2)]
    bounds = np.sort(random.uniform(0.0, 30.0, int(random.integers(2, 30))))
    moved = kept([(float(a), float(b)) for a, b in pairwise(bounds)], pauses, duration_s=30.0)
    assert len(moved) == len(bounds) - 1
    times = [at_s for word in moved for at_s in word]
    assert times == sorted(times)
    assert not [word for word in moved for start, end in pauses if min(word[1], end) - max(word[0], start) > 1e-9]


def test_pauses_are_found_where_their_noise_differs(slow_digits: tuple[np.ndarray, list[float]]) -> None:
    waveform, starts = slow_digits
    pauses = find_long_pauses(waveform, find_pauses(waveform))
    assert [end for _, end in pauses[:3]] == pytest.approx(starts, abs=TOLERANCE_S)
    assert len(pauses) == 4
    assert find_long_pauses(np.zeros(SAMPLING_RATE, np.float32), []) == []


def test_words_that_attention_spreads_over_pauses_begin_where_they_are_said(
    slow_digits: tuple[np.ndarray, list[float]],
) -> None:
    waveform, starts = slow_digits
    words = [WordTokens(f" {text}", (index,)) for index, text in enumerate(("seven", "two", "nine"))]
    attended = np.array([0.08, starts[0] + 0.3, starts[1] + 0.25, starts[2] + 0.3])
    (timed,) = place_segments(attended, np.ones(3, np.float32), [words], waveform=waveform)
    assert [word.start_s for word in timed] == pytest.approx(starts, abs=TOLERANCE_S)
    assert may_hold_pauses([WordTime("a", 0.0, 1.2, 1.0)])
    assert not may_hold_pauses([WordTime("a", 0.0, 0.9, 1.0)])
