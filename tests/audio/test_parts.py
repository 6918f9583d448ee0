"""Parts of recordings: as exact as decoding everything and slicing, and no more is read than they need."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream

from sottovoce.audio.decode import decode_audio, decode_audio_with_format, read_audio, read_audio_with_format
from sottovoce.audio.encoded import EncodedSpan
from sottovoce.audio.waveform import AudioFormat
from sottovoce.errors import AudioError

RATE = 48_000
DURATION_S = 24.0
EDGE = 200  # samples at either end where the resampler meets silence instead of what was cut off


def wandering_tone(duration_s: float = DURATION_S, rate: int = RATE) -> np.ndarray:
    """A tone that never repeats itself: any shift would show."""
    time_s = np.arange(round(duration_s * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (300 * time_s + 20 * time_s**2))).astype(np.float32)


def write(container: str, subtype: str | None, samples: np.ndarray | None = None, rate: int = RATE) -> bytes:
    """Encode (N,) or (N, C) samples with libsndfile."""
    buffer = io.BytesIO()
    samples = wandering_tone(rate=rate) if samples is None else samples
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=container) as file:
        for start in range(0, len(samples), rate):  # libsndfile's Vorbis overflows its stack on more at once
            file.write(samples[start : start + rate])
    return buffer.getvalue()


def write_ffmpeg(container: str, codec: str, samples: np.ndarray | None = None, bit_rate: int = 128_000) -> bytes:
    """Encode (N,) samples with FFmpeg's libraries."""
    buffer = io.BytesIO()
    samples = wandering_tone() if samples is None else samples
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        to_codec = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=RATE)
        for piece in to_codec.resample(frame):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return buffer.getvalue()


MAKERS: dict[str, Callable[[], bytes]] = {
    "wav": partial(write, "WAV", "PCM_16"),
    "flac": partial(write, "FLAC", "PCM_16"),
    "vorbis": partial(write, "OGG", "VORBIS"),
    "opus": partial(write_ffmpeg, "ogg", "libopus"),
    "mp3": partial(write_ffmpeg, "mp3", "libmp3lame"),
    "m4a": partial(write_ffmpeg, "ipod", "aac"),
    "mp4": partial(write_ffmpeg, "mp4", "aac"),
    "webm": partial(write_ffmpeg, "webm", "libopus"),
}
# Largest difference from decoding everything and slicing, and samples it may be shifted by.
EXACT = (1e-5, 0)
TOLERANCES = {
    "wav": EXACT,
    "flac": EXACT,
    "vorbis": EXACT,
    "opus": EXACT,
    "mp3": EXACT,
    "m4a": (0.02, 0),  # AAC fills bands with noise, another one at each start
    "mp4": (0.02, 0),
    "webm": (1e-3, 8),  # its times are whole milliseconds, and Opus begins 6.5 ms before the first
}
# Share of the bytes that 2 s at half time may cost; mp3 has no index: frames before are walked over, not decoded.
MAX_READ = {"wav": 0.1, "flac": 0.25, "mp3": 0.7, "m4a": 0.5, "mp4": 0.5, "webm": 0.5}


@pytest.fixture(scope="module")
def encoded() -> dict[str, bytes]:
    return {name: make() for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("start_s", [0.5, 21.125])
def test_a_part_equals_a_slice_of_the_whole(encoded: dict[str, bytes], name: str, start_s: float):
    whole = decode_audio(encoded[name], source=name)
    part = decode_audio(encoded[name], source=name, start_s=start_s, duration_s=2.0)
    assert len(part) == 32_000
    tolerance, max_shift = TOLERANCES[name]
    start = round(start_s * 16_000)
    differences = [
        np.abs(whole[start + shift : start + shift + len(part)] - part)[EDGE:-EDGE].max()
        for shift in range(-max_shift, max_shift + 1)
    ]
    assert min(differences) <= tolerance


class CountingFile(io.BytesIO):
    num_read = 0

    def readinto(self, buffer: memoryview, /) -> int:
        num_read = super().readinto(buffer)
        self.num_read += num_read
        return num_read


def count_bytes_read(data: bytes, monkeypatch: pytest.MonkeyPatch, *, start_s: float) -> int:
    counting = CountingFile(data)
    span = EncodedSpan(counting, start=0, stop=len(data))
    monkeypatch.setattr("sottovoce.audio.reference._wrap", lambda *_arguments: span)
    assert len(read_audio(__file__, start_s=start_s, duration_s=2.0)) == 32_000
    return counting.num_read


@pytest.mark.parametrize("name", MAX_READ)
def test_no_more_is_read_than_a_part_needs(encoded: dict[str, bytes], name: str, monkeypatch: pytest.MonkeyPatch):
    num_read = count_bytes_read(encoded[name], monkeypatch, start_s=12.0)
    assert 0 < num_read < MAX_READ[name] * len(encoded[name])


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["opus", "vorbis"])
def test_seeking_in_an_ogg_file_bisects(codec: str, monkeypatch: pytest.MonkeyPatch):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 100 * RATE).astype(np.float32)
    if codec == "opus":
        data = write_ffmpeg("ogg", "libopus", samples, bit_rate=256_000)
    else:
        data = write("OGG", "VORBIS", np.stack([samples[: 15 * RATE]] * 12, axis=1))
    num_read = count_bytes_read(data, monkeypatch, start_s=5.0)
    assert num_read < 0.5 * len(data)
    assert num_read < 1_100_000  # steps of 64 KiB; measured the same at 30, 120 and 480 s of Opus


@pytest.mark.parametrize(
    ("data", "rate", "num_channels", "bits", "container"),
    [
        (write("WAV", "PCM_16", np.zeros((RATE, 2))), RATE, 2, 16, "wav"),
        (write("WAV", "PCM_U8", np.zeros(RATE)), RATE, 1, 8, "wav"),
        (write("WAV", "FLOAT", np.zeros(8_000), 8_000), 8_000, 1, 32, "wav"),
        (write("FLAC", "PCM_24", np.zeros((96_000, 8)), 96_000), 96_000, 8, 24, "flac"),
        (write("MP3", None, np.zeros(RATE)), RATE, 1, None, "mp3"),
        (write_ffmpeg("ogg", "libopus", wandering_tone(1.0)), RATE, 1, None, "ogg"),
        (write_ffmpeg("mp4", "aac", wandering_tone(1.0)), RATE, 1, None, "mov"),
        (write_ffmpeg("matroska", "pcm_s24le", wandering_tone(1.0)), RATE, 1, 24, "matroska"),
    ],
)
def test_how_a_recording_was_stored_is_told_beside_the_waveform(
    data: bytes, rate: int, num_channels: int, bits: int | None, container: str
):
    waveform, audio_format = decode_audio_with_format(data, source="test", duration_s=0.5)
    assert len(waveform) == 8_000
    assert audio_format == AudioFormat(sampling_rate=rate, num_channels=num_channels, bits=bits, container=container)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_int16_samples_equal_what_libsndfile_reads_as_float32(subtype: str, channels: int):
    samples = np.random.default_rng(0).uniform(-1, 1, (16_000, channels))
    buffer = io.BytesIO()
    container = "AIFF" if subtype == "PCM_S8" else "WAV"
    soundfile.write(buffer, samples, 16_000, format=container, subtype=subtype)
    expected, _ = soundfile.read(io.BytesIO(buffer.getvalue()), dtype="float32", always_2d=True)
    waveform = decode_audio(buffer.getvalue(), source="test")
    np.testing.assert_allclose(waveform, expected.mean(axis=1, dtype=np.float64), atol=1e-7)


def test_opus_is_decoded_as_libopus_does(encoded: dict[str, bytes]):
    expected, _ = soundfile.read(io.BytesIO(encoded["opus"]), dtype="float32", stop=RATE)
    waveform = decode_audio(encoded["opus"], source="test", duration_s=1.0)
    np.testing.assert_allclose(waveform[EDGE:-EDGE], expected[::3][EDGE:-EDGE], atol=2e-3)  # below 8 kHz: no aliases


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_damaged_files_are_read_as_damaged_bytes_are(container: str, tmp_path: Path):
    buffer = io.BytesIO()
    soundfile.write(buffer, wandering_tone(0.2), RATE, format=container)
    generator = np.random.default_rng(0)
    path = tmp_path / "a"
    for _ in range(40):
        damaged = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        indices = generator.integers(0, 64, size=generator.integers(1, 6))
        damaged[indices] = generator.integers(0, 256, size=len(indices))
        data = damaged.tobytes()
        path.write_bytes(data)
        as_file = _outcome(partial(read_audio_with_format, path, max_duration_s=30.0))
        assert as_file == _outcome(partial(decode_audio_with_format, data, source=str(path), max_duration_s=30.0))


def _outcome(decode: Callable[[], tuple[np.ndarray, AudioFormat]]) -> object:
    try:
        waveform, audio_format = decode()
    except AudioError as error:
        return type(error), str(error)
    return waveform.tobytes(), audio_format
