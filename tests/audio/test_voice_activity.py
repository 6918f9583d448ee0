import numpy as np
import pytest
from silero_vad import get_speech_timestamps, load_silero_vad

from sottovoce.audio.decode import read_audio
from sottovoce.audio.voice_activity import FRAME_SAMPLES, find_speech, load_voice_activity, speech_gain
from sottovoce.audio.waveform import to_pcm
from sottovoce.schema import SAMPLING_RATE

SETTINGS = {"threshold": 0.5, "min_silence_s": 0.1, "min_speech_s": 0.25}


@pytest.fixture(scope="module")
def spoken(shared_data) -> np.ndarray:
    """Eleven seconds of one man, between four seconds of silence, and a piece that fills no frame."""
    speech = read_audio(shared_data / "jfk.flac")
    silence = np.zeros(2 * SAMPLING_RATE + 100, np.float32)
    return np.concatenate([silence, speech, silence])


def frames(*probabilities: float) -> list[np.ndarray]:
    return [np.array(probabilities[:2], np.float32), np.array(probabilities[2:], np.float32)]


def spans(*probabilities: float, **settings: float) -> list[tuple[int, int]]:
    """Spans in frames."""
    found = find_speech(
        frames(*probabilities),
        num_samples=len(probabilities) * FRAME_SAMPLES,
        **{"threshold": 0.5, "min_silence_s": 0.06, "min_speech_s": 0.0, **settings},
    )
    return [(start // FRAME_SAMPLES, end // FRAME_SAMPLES) for start, end in found]


def test_probabilities_are_those_of_the_packages_own_streaming_network(spoken):
    import torch

    model = load_silero_vad(onnx=True)
    expected = model.audio_forward(torch.from_numpy(spoken), SAMPLING_RATE).numpy()[0]
    found = np.concatenate(list(load_voice_activity().probabilities(spoken)))
    assert len(found) == len(expected) == -(-len(spoken) // FRAME_SAMPLES)
    assert np.abs(found - expected).max() < 1e-4
    of_pcm = np.concatenate(list(load_voice_activity().probabilities(to_pcm(spoken))))
    assert np.abs(of_pcm - expected).max() < 0.05  # rounding to 16 bits is audible in silence


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("min_silence_ms", [100, 200, 700])
def test_spans_are_those_of_get_speech_timestamps(spoken, threshold, min_silence_ms):
    import torch

    expected = get_speech_timestamps(
        torch.from_numpy(spoken),
        load_silero_vad(onnx=True),
        threshold=threshold,
        min_silence_duration_ms=min_silence_ms,
        speech_pad_ms=0,
    )
    blocks = load_voice_activity().probabilities(spoken)
    found = list(
        find_speech(
            blocks,
            num_samples=len(spoken),
            threshold=threshold,
            min_silence_s=min_silence_ms / 1000,
            min_speech_s=0.25,
        )
    )
    assert found == [(span["start"], span["end"]) for span in expected]
    assert found


def test_speech_begins_at_the_threshold_and_ends_well_below_it():
    assert spans(0.4, 0.5, 0.4, 0.36, 0.1, 0.1, 0.1, 0.1) == [(1, 4)]
    assert spans(0.6, 0.1, 0.6, 0.1, 0.1, 0.1) == [(0, 3)]


def test_speech_that_does_not_end_lasts_to_the_end():
    assert spans(0.1, 0.9, 0.9) == [(1, 3)]
    assert spans(0.1, 0.9, 0.1) == [(1, 3)]


def test_short_bursts_and_silence_give_nothing():
    assert spans(0.1, 0.9, 0.1, 0.1, 0.1, 0.1, min_speech_s=0.064) == []
    assert spans(0.1, 0.1, 0.9, min_speech_s=0.064) == []
    assert spans(0.1, 0.2, 0.3) == []


def test_a_span_is_given_before_the_rest_is_read():
    def blocks():
        yield np.array([0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
        raise AssertionError("read on")

    found = find_speech(blocks(), num_samples=10**6, **SETTINGS | {"min_speech_s": 0.0})
    assert next(found) == (0, 3 * FRAME_SAMPLES)


@pytest.mark.parametrize(("peak", "gain"), [(0.9, 1.0), (0.5, 1.0), (0.05, 10.0), (0.0001, 100.0), (0.0, 100.0)])
def test_soft_recordings_are_raised_to_one_level_and_loud_ones_left(peak, gain):
    samples = np.full(200_000, peak, np.float32)
    samples[9_000] = 0.9  # a click is no voice
    assert speech_gain(samples) == pytest.approx(gain, rel=0.01)
    assert speech_gain(to_pcm(samples)) == pytest.approx(gain, rel=0.2)
    assert speech_gain(samples[:0]) == 100.0


def test_gain_raises_the_level_of_the_networks_input(spoken):
    louder, softer = (
        np.concatenate(list(load_voice_activity().probabilities(samples, gain=gain)))
        for samples, gain in ((spoken * np.float32(0.5), 1.0), (spoken * np.float32(0.05), 10.0))
    )
    assert np.abs(louder - softer).max() < 1e-3
