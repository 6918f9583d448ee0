"""The length of an mp3 is read from its tag, and a word of a title or a cover is no tag."""

from pathlib import Path

import numpy as np
import pytest
from ffmpeg_files import RATE, encode, voice

from sottovoce.audio.decode import decode_audio, read_audio
from sottovoce.audio.encoded import EncodedBytes
from sottovoce.audio.mp3_header import Mp3Length, read_mp3_length
from sottovoce.errors import AudioDecodeError


def decode(data: bytes) -> np.ndarray:
    return decode_audio(data, source="test")


def id3(content: bytes, *, footer: bool = False) -> bytes:
    """Return an ID3v2 tag; its size is written in bytes of seven bits."""
    size = bytes(len(content) >> shift & 0x7F for shift in (21, 14, 7, 0))
    rest = bytes([4, 0, 0x10 if footer else 0]) + size
    return b"ID3" + rest + content + (b"3DI" + rest if footer else b"")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mp3")


@pytest.fixture(scope="module")
def untagged(folder: Path) -> bytes:
    """Loud, then quiet, without a length: libsndfile guesses a third of it from the first frames."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 2 * RATE).astype(np.float32)
    options = ("-q:a", "4", "-write_xing", "0", "-id3v2_version", "0")
    return encode(np.concatenate([noise, 0.01 * voice(6.0)]), folder / "untagged.mp3", *options)


@pytest.fixture(scope="module")
def tagged(folder: Path) -> bytes:
    return encode(voice(3.0), folder / "tagged.mp3", "-q:a", "4", "-id3v2_version", "0")


TAGS = {
    "none": b"",
    "a title": id3(b"TIT2\0\0\0\x14\0\0\0Information evening"),
    "Xing and Info": id3(b"Xing Info VBRI" + b"\0" * 90),
    "a large cover": id3(b"APIC" + np.random.default_rng(1).bytes(300_000) + b"Info"),
    "several": id3(b"Info" * 9) + id3(b"x" * 200) + id3(b"Xing", footer=True),
    "a footer": id3(b"Info" * 9, footer=True),
    "padding": id3(b"Info") + b"\0" * 3_000,
    "rubbish": id3(b"Info") + b"\xff\xfb\x90\x00" + b"\xff" * 50,
}


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_an_mp3_without_a_length_is_read_whole_behind_any_tag(untagged: bytes, tag: bytes, folder: Path):
    data = tag + untagged
    assert read_mp3_length(EncodedBytes(data)) is None
    assert len(decode(data)) >= 8 * RATE
    path = folder / "read.mp3"
    path.write_bytes(data)
    assert len(read_audio(path)) >= 8 * RATE


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_an_mp3_with_a_length_is_refused_behind_any_tag_when_it_was_cut(tagged: bytes, tag: bytes):
    assert read_mp3_length(EncodedBytes(tag + tagged)) == read_mp3_length(EncodedBytes(tagged))
    assert 0 <= len(decode(tag + tagged)) - 3 * RATE <= 1_105 + 2 * 576, "libsndfile finds no tag behind padding"
    with pytest.raises(AudioDecodeError, match=r"truncated|damaged"):
        decode(tag + tagged[: len(tagged) // 2])


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 2), (22_050, 1), (44_100, 1), (48_000, 2)])
def test_the_length_lies_where_version_and_channels_say(tmp_path: Path, rate: int, channels: int):
    data = encode(voice(1.0), tmp_path / "a.mp3", "-ar", str(rate), "-ac", str(channels))
    length = read_mp3_length(EncodedBytes(data))
    assert length is not None
    assert length.is_xing
    assert 0 <= length.num_samples - rate <= 1_105 + 2 * 1_152


def test_a_xing_tag_without_a_number_of_frames_declares_no_length(tagged: bytes):
    data = bytearray(tagged)
    offset = max(data.find(b"Xing"), data.find(b"Info"))
    data[offset + 7] &= 0xFE
    assert read_mp3_length(EncodedBytes(bytes(data))) is None


def test_a_vbri_tag_declares_a_length_too(untagged: bytes):
    num_frames = 8 * RATE // 576
    frame = bytearray([0xFF, 0xF3, 0x48, 0xC4]) + bytes(140)  # 32 kbit/s, 16 kHz, mono
    frame[36:54] = b"VBRI" + bytes(10) + num_frames.to_bytes(4, "big")
    data = bytes(frame) + untagged
    assert read_mp3_length(EncodedBytes(data)) == Mp3Length(num_samples=num_frames * 576, is_xing=False)
    assert len(decode(data)) >= 8 * RATE
    with pytest.raises(AudioDecodeError, match="truncated"):
        decode(data[: len(data) * 6 // 10])


@pytest.mark.parametrize("data", [b"", b"ID3", id3(b""), id3(b"x" * 50)[:30], id3(b"") * 100_000, b"\xff" * 70_000])
def test_rubbish_declares_no_length(data: bytes):
    assert read_mp3_length(EncodedBytes(data)) is None
