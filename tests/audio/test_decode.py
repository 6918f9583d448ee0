import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from sottovoce.audio import decode
from sottovoce.audio.decode import decode_audio, read_audio
from sottovoce.errors import (
    AudioDecodeError,
    AudioError,
    AudioExpansionError,
    AudioTooLongError,
    EmptyAudioError,
    NonFiniteAudioError,
)


def tone(duration_s: float = 1.0, rate: int = 16_000, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, rate: int = 16_000, container: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def encode_ffmpeg(samples: np.ndarray, *, container: str, codec: str, rate: int = 48_000) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]), format="fltp", layout="stereo")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def decode_plain(data: bytes, **limits: float) -> np.ndarray:
    return decode_audio(data, source="test", **limits)


def test_pcm_at_16_khz_comes_back_exactly():
    waveform = decode_plain(encode(tone(), subtype="FLOAT"))
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_becomes_16_khz(rate: int):
    waveform = decode_plain(encode(tone(1.0, rate), rate))
    assert abs(len(waveform) - 16_000) <= 1
    np.testing.assert_allclose(waveform[800:-800], tone()[800 : len(waveform) - 800], atol=2e-3)


def test_resampling_in_blocks_equals_resampling_at_once():
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100 * 25).astype(np.float32)
    whole = soxr.resample(samples, 44_100, 16_000, quality="HQ")
    waveform = decode_plain(encode(samples, 44_100, subtype="FLOAT"))
    assert len(waveform) == len(whole)
    np.testing.assert_allclose(waveform, whole, atol=1e-5)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM"])
def test_any_sample_format_is_read(subtype: str):
    waveform = decode_plain(encode(tone(), subtype=subtype))
    np.testing.assert_allclose(waveform[64:16_000], tone()[64:], atol=0.03)  # ADPCM needs some samples to adapt


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("FLAC", "PCM_24"), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("AIFF", "PCM_16")],
)
def test_compressed_containers_of_libsndfile_are_read(container: str, subtype: str | None):
    waveform = decode_plain(encode(tone(1.0, 48_000), 48_000, container, subtype))
    assert abs(len(waveform) / 16_000 - 1.0) < 0.06
    assert 0.45 < np.abs(waveform[4_000:12_000]).max() < 0.55


@pytest.mark.parametrize(
    ("container", "codec"),
    [("ipod", "aac"), ("mp4", "aac"), ("mp4", "alac"), ("webm", "libopus"), ("adts", "aac"), ("matroska", "libopus")],
)
def test_containers_of_ffmpeg_are_read_whole_and_in_part(container: str, codec: str):
    data = encode_ffmpeg(tone(3.0, 48_000), container=container, codec=codec)
    whole = decode_plain(data)
    assert abs(len(whole) / 16_000 - 3.0) < 0.08
    assert 0.4 < np.abs(whole[16_000:32_000]).max() < 0.6
    part = decode_plain(data, start_s=1.5, duration_s=0.5)
    assert abs(len(part) - 8_000) <= 1


def test_channels_are_averaged():
    channels = np.stack([tone() * gain for gain in np.linspace(0.0, 1.0, 8)], axis=1)
    waveform = decode_plain(encode(channels, subtype="FLOAT"))
    np.testing.assert_allclose(waveform, tone() * 0.5, atol=1e-6)


def test_more_channels_than_a_frame_has_planes_do_not_end_the_process():
    data = bytearray(encode(tone(), subtype="DOUBLE"))
    data[22] = 62  # libsndfile refuses the PEAK chunk that no longer fits, so FFmpeg reads 62 channels
    data[32:34] = (62 * 8).to_bytes(2, "little")
    assert 0 < len(decode_plain(bytes(data))) < 16_000


def test_samples_beyond_full_scale_are_clipped():
    waveform = decode_plain(encode(tone() * 4, subtype="FLOAT"))
    assert np.abs(waveform).max() == 1.0


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "OGG"])
def test_only_the_wanted_part_is_decoded(container: str):
    samples = np.concatenate([np.zeros(16_000, np.float32), tone(1.0), np.zeros(16_000, np.float32)])
    data = encode(samples, container=container, subtype=None)
    part = decode_plain(data, start_s=1.25, duration_s=0.5, max_duration_s=0.6)
    assert len(part) == 8_000
    assert np.abs(part[1_000:-1_000]).max() > 0.45


def test_a_part_that_reaches_beyond_the_end_is_shorter():
    assert len(decode_plain(encode(tone()), start_s=0.75, duration_s=2.0)) == 4_000


def test_a_start_beyond_the_end_is_an_error():
    with pytest.raises(AudioDecodeError, match="beyond its end"):
        decode_plain(encode(tone()), start_s=1.0)
    with pytest.raises(AudioDecodeError, match="beyond its end"):
        decode_plain(encode_ffmpeg(tone(1.0, 48_000), container="mp4", codec="aac"), start_s=9.0)


@pytest.mark.parametrize("data", [b"", encode(np.zeros(0, np.float32)), encode(np.zeros((0, 2)), container="FLAC")])
def test_no_samples_raise_empty_audio_error(data: bytes):
    with pytest.raises(EmptyAudioError):
        decode_plain(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_counted(value: float):
    samples = np.stack([tone(), tone()], axis=1)
    samples[[5, 9_000], 1] = value
    with pytest.raises(NonFiniteAudioError, match="2 samples"):
        decode_plain(encode(samples, subtype="FLOAT"))


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_truncated_file_raises_audio_decode_error(container: str, part: float):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    data = encode(noise, container=container, subtype=None)
    with pytest.raises(AudioDecodeError):
        decode_plain(data[: int(len(data) * part)])


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("webm", "libopus")])
def test_truncated_container_of_ffmpeg_raises_audio_decode_error(container: str, codec: str):
    data = encode_ffmpeg(tone(3.0, 48_000), container=container, codec=codec)
    with pytest.raises(AudioDecodeError):
        decode_plain(data[: len(data) // 2])


def test_a_wav_written_to_a_pipe_without_its_size_is_read():
    data = bytearray(encode(tone()))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert len(decode_plain(bytes(data))) == 16_000


@pytest.mark.parametrize(
    "data",
    [
        b"This is no audio at all.\n" * 100,
        b"RIFF",
        b"<!doctype html><title>404</title>",
        np.random.default_rng(0).bytes(50_000),
        b"\0" * 50_000,
    ],
)
def test_what_is_no_audio_raises_audio_decode_error(data: bytes):
    with pytest.raises(AudioDecodeError):
        decode_plain(data)


def test_playlists_and_lists_of_files_are_never_followed(tmp_path: Path):
    target = tmp_path / "secret.wav"
    target.write_bytes(encode(tone()))
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n{target.as_uri()}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{target}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\na=x:{target}\n",
        f"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{target}</BaseURL></MPD>",
    ]
    for playlist in playlists:
        with pytest.raises(AudioDecodeError):
            decode_plain(playlist.encode())


def test_too_long_audio_is_refused_while_decoding():
    data = encode(np.zeros(16_000 * 60, np.float32), container="FLAC")
    with pytest.raises(AudioTooLongError, match="limit of 45 s"):
        decode_plain(data, max_duration_s=45.0)
    assert len(decode_plain(data, max_duration_s=60.0)) == 960_000


def test_the_limit_holds_for_ffmpeg_containers():
    with pytest.raises(AudioTooLongError):
        decode_plain(encode_ffmpeg(tone(3.0, 48_000), container="mp4", codec="aac"), max_duration_s=2.0)


def test_small_bytes_that_unpack_without_end_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "MAX_DECODED_BYTES", 2**20)
    data = encode(np.zeros((65_535, 8), np.float32), 96_000, "FLAC")
    with pytest.raises(AudioExpansionError, match="unpack to more than 1536000 bytes"):
        decode_plain(data, max_duration_s=1.0)
    assert len(decode_plain(data, max_duration_s=2.0)) == 10_923


def test_silence_may_unpack_to_thousands_of_times_its_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "MAX_DECODED_BYTES", 2**20)
    data = encode(np.zeros((48_000 * 60, 2), np.float32), 48_000, "FLAC")
    assert 500 * len(data) < 48_000 * 60 * 2 * 4
    assert len(decode_plain(data)) == 960_000


@pytest.mark.parametrize("rate", [1, 999, 2_000_000])
def test_rates_without_speech_are_refused(rate: int):
    with pytest.raises(AudioDecodeError, match="rate"):
        decode_plain(encode(np.zeros(4_000, np.float32), rate))


@pytest.mark.parametrize(
    "data",
    [
        encode(tone(0.2)),
        encode(tone(0.2), container="FLAC"),
        encode(tone(0.2), container="OGG", subtype="VORBIS"),
        encode(tone(0.2), container="AIFF"),
        encode_ffmpeg(tone(0.2, 48_000), container="mp4", codec="aac"),
        encode_ffmpeg(tone(0.2, 48_000), container="webm", codec="libopus"),
    ],
    ids=["wav", "flac", "ogg", "aiff", "mp4", "webm"],
)
def test_damaged_bytes_give_audio_or_an_audio_error_and_nothing_else(data: bytes):
    generator = np.random.default_rng(len(data))
    for _ in range(60):
        damaged = np.frombuffer(data, np.uint8).copy()
        span = 64 if generator.random() < 0.7 else len(damaged)  # mostly the header
        indices = generator.integers(0, span, size=generator.integers(1, 6))
        damaged[indices] = generator.integers(0, 256, size=len(indices))
        try:
            waveform = decode_plain(damaged.tobytes(), max_duration_s=30.0)
        except AudioError:
            continue
        assert np.isfinite(waveform).all()
        assert np.abs(waveform).max(initial=0.0) <= 1.0


def test_files_are_read_and_missing_ones_named(tmp_path: Path):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(tone()))
    np.testing.assert_array_equal(read_audio(path, start_s=0.5), decode_plain(path.read_bytes(), start_s=0.5))
    with pytest.raises(FileNotFoundError):
        read_audio(tmp_path / "missing.wav")
    with pytest.raises(AudioDecodeError, match="directory"):
        read_audio(tmp_path)


def test_real_speech_is_read(shared_data: Path):
    assert len(read_audio(shared_data / "jfk.flac")) == 176_000


@pytest.mark.parametrize("size", [2_000_000_000, 1 << 30, 1_500_000_000, 0x7FFFFFFF, 0xFFFFFFFF, 0, 0x40000000 - 44])
@pytest.mark.parametrize("is_riff_known", [True, False])
def test_a_wav_whose_size_is_a_placeholder_is_read_to_its_end(tmp_path: Path, size: int, is_riff_known: bool):
    data = bytearray(encode(tone()))
    data[40:44] = size.to_bytes(4, "little")
    data[4:8] = (min(size + 36, 0xFFFFFFFF) if size and is_riff_known else size).to_bytes(4, "little")
    np.testing.assert_allclose(decode_plain(bytes(data)), tone(), atol=1e-4)
    assert len(decode_plain(bytes(data), start_s=0.25, duration_s=0.5)) == 8_000
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    assert len(read_audio(path)) == 16_000


@pytest.mark.parametrize(("size", "riff"), [(64_000, 64_036), (300_000, 300_036), (2_000_000_000, 32_036)])
def test_a_wav_that_promises_what_a_recording_may_hold_is_truncated(size: int, riff: int):
    data = bytearray(encode(tone()))
    data[4:8], data[40:44] = riff.to_bytes(4, "little"), size.to_bytes(4, "little")
    with pytest.raises(AudioDecodeError, match="truncated"):
        decode_plain(bytes(data))


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("adts", "aac"), ("mp3", "libmp3lame")])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_padding_of_a_codec_beyond_the_limit_is_cut_off(container: str, codec: str, rate: int):
    data = encode_ffmpeg(tone(3.0, rate), container=container, codec=codec, rate=rate)
    waveform = decode_plain(data, max_duration_s=3.0)
    assert len(waveform) == 48_000
    np.testing.assert_array_equal(waveform[:47_000], decode_plain(data)[:47_000])
    with pytest.raises(AudioTooLongError):
        decode_plain(data, max_duration_s=2.8)


def test_samples_that_are_no_padding_are_too_long():
    with pytest.raises(AudioTooLongError):
        decode_plain(encode(np.concatenate([tone(), tone(0.01)])), max_duration_s=1.0)


@pytest.mark.parametrize("num_lost", [30, -50])
def test_a_damaged_last_frame_costs_no_more_than_itself(
    tmp_path: Path, num_lost: int, caplog: pytest.LogCaptureFixture
):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 45 * 16_000).astype(np.float32)
    data = bytearray(encode(noise, container="FLAC"))
    if num_lost > 0:
        data = data[:-num_lost]
    else:
        data[num_lost] ^= 0xFF
    waveform = decode_plain(bytes(data))
    assert 44.7 < len(waveform) / 16_000 < 45.0
    np.testing.assert_allclose(waveform, noise[: len(waveform)], atol=1e-4)
    assert "are lost" in caplog.text
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path), waveform)
    assert len(read_audio(path, start_s=40.0)) == len(waveform) - 40 * 16_000


def test_damage_within_a_file_or_of_more_than_its_end_is_an_error():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 9 * 16_000).astype(np.float32)
    data = bytearray(encode(noise, container="FLAC"))
    short = encode(noise[:8_000], container="FLAC")
    for damaged in (data[: len(data) * 98 // 100], data[: len(data) // 2] + b"\0\0" + data[len(data) // 2 + 2 :]):
        with pytest.raises(AudioDecodeError, match="samples are there"):
            decode_plain(bytes(damaged))
    with pytest.raises(AudioDecodeError, match="samples are there"):
        decode_plain(short[:-30])
