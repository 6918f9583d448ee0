"""Times in the result are times of the file: late sound, gaps, and timestamps that mean neither."""

import io
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from ffmpeg_files import RATE, encode, likeness, run_ffmpeg, voice

from sottovoce.audio.decode import decode_audio, decode_pcm_blocks
from sottovoce.audio.encoded import EncodedBytes
from sottovoce.errors import AudioExpansionError, AudioTooLongError

_VIDEO = ("-f", "lavfi", "-i", "testsrc=duration=6:size=64x48:rate=10")
_FRAME = 960  # samples of Opus at 48 kHz


def decode(data: bytes, **wanted: float) -> np.ndarray:
    return decode_audio(data, source="test", **wanted)


def add_video(folder: Path, name: str, *, late_s: float, options: Sequence[str] = ()) -> bytes:
    """Write a film whose video begins at 0 s, and 2 s of voice that begin ``late_s`` later."""
    encode(voice(2.0), folder / "a.wav")
    video = "libvpx" if name.endswith("webm") else "libx264"
    sound = ("-itsoffset", str(late_s), "-i", folder / "a.wav")
    run_ffmpeg(*_VIDEO, *sound, "-c:v", video, *options, folder / name)
    return (folder / name).read_bytes()


def write_jumping(container: str, jumps_s: dict[int, float], *, num_frames: int = 200, codec: str = "libopus") -> bytes:
    """Write a tone of 48 kHz in one track; from frame ``key`` on, times are so many seconds later."""
    buffer = io.BytesIO()
    tone = (0.4 * np.sin(2 * np.pi * 440 * np.arange(num_frames * _FRAME) / 48_000)).astype(np.float32)
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        packets = [*stream.encode(frame), *stream.encode(None)]
        for index, packet in enumerate(packets):
            jump_s = sum(seconds for first, seconds in jumps_s.items() if index >= first)
            assert packet.pts is not None
            assert packet.time_base is not None
            packet.pts = packet.dts = packet.pts + round(jump_s / packet.time_base)
            output.mux(packet)
    return buffer.getvalue()


def silences(waveform: np.ndarray) -> list[tuple[float, float]]:
    """Return where each silence of more than 50 ms begins and ends [s]."""
    loud = np.flatnonzero(np.abs(np.concatenate([[1.0], waveform, [1.0]])) > 0.01) - 1
    starts = np.flatnonzero(np.diff(loud) > 0.05 * RATE)
    return [(float(loud[one] + 1) / RATE, float(loud[one + 1]) / RATE) for one in starts]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.mov", "a.ts"])
def test_sound_that_begins_after_the_video_comes_as_late(tmp_path: Path, name: str):
    data = add_video(tmp_path, name, late_s=3.0)
    original = np.concatenate([np.zeros(3 * RATE, np.float32), voice(2.0)])
    waveform = decode(data)
    late, _ = likeness(original, waveform)
    assert abs(late) < 0.07 * RATE, "an encoder's delay at most"
    assert np.abs(waveform[: int(2.9 * RATE)]).max() == 0.0


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv"])
@pytest.mark.parametrize(("start_s", "duration_s"), [(0.1, 4.0), (1.0, 1.0), (2.5, 1.5), (3.5, 1.0)])
def test_a_part_of_a_late_sound_is_that_part_of_the_whole(tmp_path: Path, name: str, start_s: float, duration_s: float):
    data = add_video(tmp_path, name, late_s=3.0)
    start, num_samples = round(start_s * RATE), round(duration_s * RATE)
    expected, part = decode(data)[start : start + num_samples], decode(data, start_s=start_s, duration_s=duration_s)
    assert len(part) == num_samples
    if start_s + duration_s <= 2.9:
        assert np.abs(part).max() == 0.0
    else:
        late, snr_db = likeness(expected, part)
        assert (abs(late) <= 16, snr_db > 15) == (True, True), (late, snr_db)


def test_sound_alone_that_begins_late_comes_as_late(tmp_path: Path):
    encode(voice(2.0), tmp_path / "a.wav")
    for name in ("a.mka", "a.webm", "a.m4a"):
        run_ffmpeg("-itsoffset", "3", "-i", tmp_path / "a.wav", tmp_path / name)
        assert abs(len(decode((tmp_path / name).read_bytes())) / RATE - 5.0) < 0.1, name


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.mov", "a.ts"])
def test_sound_that_begins_with_the_video_is_not_moved(tmp_path: Path, name: str):
    waveform = decode(add_video(tmp_path, name, late_s=0.0, options=("-ar", "48000")))
    late, _ = likeness(voice(2.0), waveform)
    assert abs(late) <= 1_100, "FFmpeg tells no delay of AAC in a transport stream"
    assert len(waveform) < 2.1 * RATE


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "libopus"), ("mp4", "libopus")])
def test_a_gap_in_the_times_is_silence_and_the_parts_follow_it(container: str, codec: str):
    data = write_jumping(container, {100: 4.0}, codec=codec)
    ((start_s, stop_s),) = silences(waveform := decode(data))
    assert abs(start_s - 2.0) < 0.03
    assert abs(stop_s - 6.0) < 0.03
    assert abs(len(waveform) / RATE - 8.0) < 0.03
    assert np.abs(decode(data, start_s=3.0, duration_s=2.0)).max() == 0.0
    ((start_s, stop_s),) = silences(decode(data, start_s=4.0, duration_s=3.0))
    assert (start_s, abs(stop_s - 2.0) < 0.03) == (0.0, True)
    assert silences(decode(data, start_s=6.5, duration_s=1.0)) == []


def test_several_gaps_are_counted_each():
    found = silences(decode(write_jumping("webm", {50: 1.0, 100: 0.5, 150: 2.0})))
    np.testing.assert_allclose(found, [(1.0, 2.0), (3.0, 3.5), (4.5, 6.5)], atol=0.03)


def test_jitter_of_times_neither_inserts_nor_drops_samples():
    plain = decode(write_jumping("webm", {}))
    for jumps_s in ({50: 0.015, 51: -0.015}, {50: 0.06, 60: -0.015, 70: -0.015, 90: 0.04}, {50: 0.09}):
        np.testing.assert_array_equal(decode(write_jumping("webm", jumps_s)), plain)


def test_packets_lost_one_by_one_are_silence_once_they_are_more_than_jitter():
    jumps_s = dict.fromkeys(range(20, 180, 8), 0.02)  # 20 packets of 20 ms
    waveform = decode(write_jumping("webm", jumps_s))
    assert 4.3 < len(waveform) / RATE <= 4.42


@pytest.mark.parametrize("jump_s", [31.0, 100_000.0])
def test_a_forged_time_allocates_nothing_and_is_too_long(jump_s: float):
    data = write_jumping("matroska", {100: jump_s})
    decode(write_jumping("matroska", {}))  # what is allocated once
    tracemalloc.start()
    try:
        with pytest.raises(AudioTooLongError, match="limit of 30 s"):
            decode(data, max_duration_s=30.0)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    blocks = decode_pcm_blocks(EncodedBytes(data), source="test", max_duration_s=1e9, max_decoded_bytes=5_000_000)
    with pytest.raises(AudioExpansionError):
        list(blocks)


def test_of_a_long_silence_a_part_and_blocks_are_made_and_no_more():
    data = write_jumping("matroska", {100: 100_000.0})
    assert len(decode(data, start_s=1.0, duration_s=3.0)) == 3 * RATE
    data = write_jumping("matroska", {100: 120.0})
    blocks = [
        len(block)
        for block in decode_pcm_blocks(EncodedBytes(data), source="test", max_duration_s=200.0)
        if block is not None
    ]
    assert abs(sum(blocks) / RATE - 124.0) < 0.03
    assert max(blocks) < 12 * RATE


def test_a_piece_of_a_broadcast_begins_with_its_first_frame(tmp_path: Path):
    """Fragments count on from hours before; a transport stream from anywhere."""
    encode(voice(2.0), tmp_path / "a.wav")
    fragments = ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof+cmaf")
    for name, options in (("a.mp4", fragments), ("a.ts", ("-c:a", "aac"))):
        shifted = ("-output_ts_offset", "9000", tmp_path / name)
        run_ffmpeg("-i", tmp_path / "a.wav", *options, *shifted)
        assert abs(len(decode((tmp_path / name).read_bytes())) / RATE - 2.0) < 0.15, name


def test_sound_and_video_that_begin_together_anywhere_are_not_moved():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        sound = output.add_stream("aac", rate=48_000, layout="mono")
        video = output.add_stream("mpeg2video", rate=25)
        assert isinstance(sound, AudioStream)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        frame = av.AudioFrame.from_ndarray(np.full((1, 48_000), 0.1, np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 48_000, Fraction(1, 48_000)
        image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        image.pts = 25
        output.mux(video.encode(image))
        output.mux(video.encode(None))
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    assert abs(len(decode(buffer.getvalue())) / RATE - 1.0) < 0.1
