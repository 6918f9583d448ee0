import numpy as np

from sottovoce.audio.pcm import to_pcm
from sottovoce.recognize.longform.recording import Recording
from sottovoce.schema import SAMPLING_RATE

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * SAMPLING_RATE).astype(np.float32)


def test_stretches_of_pcm_and_of_waveforms_are_the_same():
    of_pcm, of_waveform = Recording(to_pcm(NOISE)), Recording(NOISE)
    assert np.abs(of_pcm.waveform(100, 900) - of_waveform.waveform(100, 900)).max() <= 1 / 32_767
    assert np.array_equal(of_pcm.pcm(100, 900), of_waveform.pcm(100, 900))
    assert of_pcm.waveform(0, 10).dtype == np.float32
    assert of_pcm.duration_s == of_waveform.duration_s == 10.0


def test_a_pause_is_found_where_it_is_quietest_within_the_bounds():
    samples = NOISE.copy()
    samples[int(4.0 * SAMPLING_RATE) : int(4.2 * SAMPLING_RATE)] *= 0.1
    samples[int(8.0 * SAMPLING_RATE) : int(8.2 * SAMPLING_RATE)] = 0.0
    recording = Recording(samples)
    assert abs(recording.find_pause(2 * SAMPLING_RATE, 6 * SAMPLING_RATE) - 4.1 * SAMPLING_RATE) <= 160
    assert abs(recording.find_pause(2 * SAMPLING_RATE, 9 * SAMPLING_RATE) - 8.1 * SAMPLING_RATE) <= 160
    assert 2 * SAMPLING_RATE < recording.find_pause(2 * SAMPLING_RATE, 3 * SAMPLING_RATE) <= 3 * SAMPLING_RATE


def test_silence_is_what_is_nowhere_above_60_db_below_full_scale():
    quiet = np.zeros(70 * SAMPLING_RATE, np.int16)
    assert Recording(quiet).is_silent(0, len(quiet))
    assert Recording(quiet[:0]).is_silent(0, 0)
    quiet[65 * SAMPLING_RATE] = 40
    assert not Recording(quiet).is_silent(0, len(quiet))
    assert Recording(quiet).is_silent(0, 64 * SAMPLING_RATE)
