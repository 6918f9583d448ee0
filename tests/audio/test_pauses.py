import numpy as np
import pytest

from sottovoce.audio.silence import find_pauses, sound_span

RATE = 16_000


def bursts(*spans_s: tuple[float, float], duration_s: float, noise: float = 0.0) -> np.ndarray:
    """Noise at 0.3 within the spans, and a floor of noise everywhere."""
    random = np.random.default_rng(0)
    waveform = noise * random.standard_normal(round(duration_s * RATE))
    for start_s, end_s in spans_s:
        start, end = round(start_s * RATE), round(end_s * RATE)
        waveform[start:end] += 0.3 * random.standard_normal(end - start)
    return waveform.astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_pauses_are_what_lies_between_sounds(noise: float) -> None:
    waveform = bursts((0.2, 0.8), (1.0, 1.73), duration_s=2.0, noise=noise)
    np.testing.assert_allclose(find_pauses(waveform), [(0.0, 0.2), (0.8, 1.0), (1.73, 2.0)], atol=0.011)


def test_a_gap_as_short_as_a_plosives_closure_is_no_pause() -> None:
    assert find_pauses(bursts((0.0, 0.5), (0.55, 1.0), duration_s=1.0)) == []


@pytest.mark.parametrize("waveform", [np.zeros(0, np.float32), np.zeros(100, np.float32), np.zeros(RATE, np.float32)])
def test_without_any_sound_there_are_no_pauses(waveform: np.ndarray) -> None:
    assert find_pauses(waveform) == []


def test_the_sound_of_a_recording_begins_and_ends_where_it_is_loud() -> None:
    assert sound_span(bursts((0.31, 0.9), duration_s=1.5, noise=0.001)) == pytest.approx((0.31, 0.9), abs=0.011)
    assert sound_span(np.zeros(RATE, np.float32)) == (0.0, 1.0)
