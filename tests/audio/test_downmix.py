import io

import numpy as np
import pytest
import soundfile

from sottovoce.audio.decode import decode_audio
from sottovoce.audio.waveform import Downmix

VOICE = np.random.default_rng(0).normal(scale=0.1, size=48_000).astype(np.float32)


def decode(channels: np.ndarray, *, rate: int = 16_000, subtype: str = "FLOAT", **wanted: float) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, channels, rate, format="WAV", subtype=subtype)
    return decode_audio(buffer.getvalue(), source="test", **wanted)


def in_channels(*gains: float) -> np.ndarray:
    return VOICE[:, None] * np.array(gains, np.float32)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
@pytest.mark.parametrize("gains", [(1.0, -1.0), (0.8, -1.0), (1.0, -1.0, 1.0, -1.0)])
def test_channels_turned_against_each_other_do_not_cancel_out(gains: tuple, subtype: str):
    waveform = decode(in_channels(*gains), subtype=subtype)
    expected = np.clip(np.abs(gains).mean() * VOICE, -1, 1)
    np.testing.assert_allclose(waveform * np.sign(waveform @ expected), expected, atol=1e-3)


def test_the_same_sound_turned_around_is_louder_than_what_differs_in_it():
    hiss = np.random.default_rng(1).normal(scale=0.01, size=(2, 48_000))
    waveform = decode(np.stack([VOICE + hiss[0], hiss[1] - VOICE], axis=1).astype(np.float32))
    assert np.std(waveform * np.sign(waveform @ VOICE) - VOICE) < 0.008, (
        "both channels are heard: their hiss is averaged"
    )


@pytest.mark.parametrize("gains", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.5), (1.0, -0.3), (1.0, 0, 0, 0, 0, 0)])
def test_other_channels_are_averaged_as_they_are(gains: tuple):
    np.testing.assert_allclose(decode(in_channels(*gains)), np.mean(gains) * VOICE, atol=1e-6)


def test_two_speakers_on_two_channels_are_both_in_the_mean():
    other = np.roll(VOICE, 20_000)
    np.testing.assert_allclose(decode(np.stack([VOICE, other], axis=1)), (VOICE + other) / 2, atol=1e-6)


def test_silence_in_all_channels_stays_silence():
    assert not decode(np.zeros((16_000, 2), np.float32)).any()


def test_a_part_is_the_part_of_the_whole_where_channels_cancel_out():
    channels = in_channels(1.0, -1.0)
    whole = decode(channels, rate=48_000)
    np.testing.assert_allclose(decode(channels, rate=48_000, start_s=0.25, duration_s=0.5)[100:-100],
                               whole[4_000:12_000][100:-100], atol=1e-3)  # fmt: skip


def test_what_is_watched_does_not_depend_on_the_blocks():
    channels = in_channels(1.0, -0.9)
    parts, whole = Downmix(), Downmix()
    whole.mix(channels)
    for start in range(0, 48_000, 1_000):
        parts.mix(channels[start : start + 1_000])
    np.testing.assert_array_equal(parts.cancelling_signs(), whole.cancelling_signs())
    np.testing.assert_array_equal(whole.cancelling_signs(), [1, -1])
    assert Downmix().cancelling_signs() is None
