import numpy as np
import pytest

from sottovoce.audio.silence import cut_at_silences, peak_dbfs


def speech(*parts: float) -> np.ndarray:
    """Noise for each positive number of seconds, silence for each negative."""
    generator = np.random.default_rng(0)
    pieces = [generator.uniform(-0.5, 0.5, int(abs(part) * 16_000)) * (part > 0) for part in parts]
    return np.concatenate(pieces).astype(np.float32)


def test_short_audio_is_one_window():
    assert cut_at_silences(speech(3.0), max_window_s=30.0) == [(0, 48_000)]


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 100_000])
def test_pure_silence_has_no_windows(num_samples: int):
    assert cut_at_silences(np.zeros(num_samples, np.float32), max_window_s=5.0) == []


def test_cuts_fall_into_the_pauses():
    spans = cut_at_silences(speech(3.0, -0.4, 3.0, -0.4, 3.0), max_window_s=5.0)
    assert len(spans) == 3
    assert all(abs(end / 16_000 - pause) <= 0.25 for (_, end), pause in zip(spans, (3.2, 6.6), strict=False))


def test_windows_are_ordered_within_the_limit_and_lose_no_speech():
    waveform = speech(7.3, -0.1, 2.0, -3.0, 11.0, -0.7, 0.3)
    spans = cut_at_silences(waveform, max_window_s=4.0)
    covered = np.zeros(len(waveform), bool)
    last = 0
    for start, end in spans:
        assert last <= start < end <= len(waveform)
        assert end - start <= 4 * 16_000
        covered[start:end] = True
        last = end
    assert covered[np.abs(waveform) > 0.001].all()


def test_long_pauses_are_left_out():
    spans = cut_at_silences(speech(1.0, -20.0, 1.0), max_window_s=5.0)
    assert [round((end - start) / 16_000, 1) for start, end in spans] == [1.2, 1.2]


def test_speech_without_a_pause_is_cut_at_the_limit_at_least():
    spans = cut_at_silences(np.full(16_000 * 10, 0.5, np.float32), max_window_s=3.0)
    assert spans[0] == (0, 48_000)
    assert sum(end - start for start, end in spans) == 160_000


def test_peak_is_in_db_below_full_scale():
    assert peak_dbfs(np.array([0.1, -1.0], np.float32)) == 0.0
    assert peak_dbfs(np.array([0.001], np.float32)) == pytest.approx(-60.0, abs=1e-4)
    assert peak_dbfs(np.zeros(0, np.float32)) == -np.inf
