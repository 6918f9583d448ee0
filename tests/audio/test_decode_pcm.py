import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.audio.decode import decode_audio, decode_pcm, decode_pcm_blocks, read_pcm
from sottovoce.audio.encoded import EncodedBytes
from sottovoce.audio.waveform import to_pcm
from sottovoce.errors import AudioDecodeError, AudioTooLongError, EmptyAudioError, NonFiniteAudioError
from sottovoce.schema import SAMPLING_RATE


def encode(samples: np.ndarray, rate: int, container: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def noise(duration_s: float, rate: int, num_channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, (int(duration_s * rate), num_channels)).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", None)])
def test_pcm_is_the_waveform_rounded(rate, num_channels, container, subtype, tmp_path: Path):
    data = encode(noise(3.0, rate, num_channels), rate, container, subtype)
    pcm = decode_pcm(data, source="test")
    assert pcm.dtype == np.int16
    assert np.array_equal(pcm, to_pcm(decode_audio(data, source="test")))
    (tmp_path / "recording").write_bytes(data)
    assert np.array_equal(read_pcm(tmp_path / "recording"), pcm)


def joined(data: bytes) -> np.ndarray:
    """Join the blocks, from the last None on."""
    blocks = []
    for block in decode_pcm_blocks(EncodedBytes(data), source="test", max_duration_s=60.0):
        blocks = [] if block is None else [*blocks, block]
    return np.concatenate(blocks)


@pytest.mark.parametrize(("rate", "container"), [(16_000, "WAV"), (44_100, "FLAC"), (48_000, "OGG")])
@pytest.mark.parametrize("is_inverted", [False, True])
def test_blocks_are_the_pcm_in_pieces_also_when_channels_cancel_each_other_out(rate, container, is_inverted):
    left = noise(5.0, rate)
    data = encode(np.concatenate([left, -left if is_inverted else left], axis=1), rate, container)
    assert np.array_equal(joined(data), decode_pcm(data, source="test"))


def test_ten_minutes_are_never_held_in_float32():
    data = encode(noise(600.0, 16_000)[:, 0], 16_000)
    tracemalloc.start()
    pcm = decode_pcm(data, source="test")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pcm) == 600 * SAMPLING_RATE
    assert peak < 2 * pcm.nbytes + 20 * 2**20  # its pieces, and what they are joined to


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyAudioError),
        (b"no audio", AudioDecodeError),
        (encode(noise(3.0, 16_000), 16_000), AudioTooLongError),
        (encode(np.array([0.0, np.nan], np.float32), 16_000, subtype="FLOAT"), NonFiniteAudioError),
    ],
    ids=["nothing", "no audio", "too long", "not finite"],
)
def test_what_is_wrong_with_a_recording_is_raised(data, error):
    with pytest.raises(error):
        decode_pcm(data, source="test", max_duration_s=2.0)
