import numpy as np
import pytest

from sottovoce.audio.waveform import to_pcm
from sottovoce.recognize.longform.recording import Recording
from sottovoce.schema import SAMPLING_RATE

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * SAMPLING_RATE).astype(np.float32)


def test_stretches_of_pcm_and_of_waveforms_are_the_same():
    of_pcm, of_waveform = Recording(to_pcm(NOISE)), Recording(NOISE)
    assert np.abs(of_pcm.waveform(100, 900) - of_waveform.waveform(100, 900)).max() <= 1 / 32_767
    assert np.array_equal(of_pcm.pcm(100, 900), of_waveform.pcm(100, 900))
    assert of_pcm.waveform(0, 10).dtype == np.float32
    assert of_pcm.duration_s == of_waveform.duration_s == 10.0


def test_a_pause_is_found_where_it_is_longest_within_the_bounds():
    samples = NOISE.copy()
    samples[int(4.0 * SAMPLING_RATE) : int(4.2 * SAMPLING_RATE)] = 0.0
    samples[int(8.0 * SAMPLING_RATE) : int(8.4 * SAMPLING_RATE)] = 0.0
    recording = Recording(samples)
    assert recording.find_pause(2 * SAMPLING_RATE, 6 * SAMPLING_RATE) == pytest.approx(4.1 * SAMPLING_RATE, abs=160)
    assert recording.find_pause(2 * SAMPLING_RATE, 9 * SAMPLING_RATE) == pytest.approx(8.2 * SAMPLING_RATE, abs=160)


def test_where_nobody_pauses_it_is_the_quietest_sample():
    hum = np.full(10 * SAMPLING_RATE, 0.3, np.float32)
    hum[5 * SAMPLING_RATE : int(5.03 * SAMPLING_RATE)] = 0.29  # too short for a pause
    found = Recording(hum).find_pause(2 * SAMPLING_RATE, 9 * SAMPLING_RATE)
    assert 4.85 * SAMPLING_RATE < found < 5.15 * SAMPLING_RATE


def test_silence_is_what_is_nowhere_above_60_db_below_full_scale():
    quiet = np.zeros(70 * SAMPLING_RATE, np.int16)
    assert Recording(quiet).is_silent(0, len(quiet))
    assert Recording(quiet[:0]).is_silent(0, 0)
    quiet[65 * SAMPLING_RATE] = 40
    assert not Recording(quiet).is_silent(0, len(quiet))
    assert Recording(quiet).is_silent(0, 64 * SAMPLING_RATE)
