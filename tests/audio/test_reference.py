import errno
import io
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from sottovoce.audio.decode import decode_audio, read_audio, read_audio_with_format
from sottovoce.audio.encoded import EncodedSpan
from sottovoce.audio.reference import AudioReference, parse_reference, read_bytes
from sottovoce.errors import AudioDecodeError, EmptyAudioError, StorageError

HOUR_S = 3_600


def encode(samples: np.ndarray, rate: int = 16_000, container: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container)
    return buffer.getvalue()


def noise(duration_s: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(duration_s * 16_000)).astype(np.float32)


@pytest.fixture
def wav() -> bytes:
    return encode(noise())


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("clips/a.wav", AudioReference(location="clips/a.wav")),
        ("/data/Track #1.wav", AudioReference(location="/data/Track #1.wav")),
        ("file:///data/a.wav", AudioReference(location="/data/a.wav")),
        ("s3://bucket/a.flac", AudioReference(location="s3://bucket/a.flac")),
        ("a.tar#bytes=512-1024", AudioReference(location="a.tar", start=512, stop=1024)),
        ("gs://b/a.tar#bytes=0-9", AudioReference(location="gs://b/a.tar", start=0, stop=9)),
        ("hf://datasets/u/n/a.parquet#row=17", AudioReference(location="hf://datasets/u/n/a.parquet", row=17)),
        ("C#/a.wav#row=", AudioReference(location="C#/a.wav#row=")),
    ],
)
def test_references_are_taken_apart(reference: str, parsed: AudioReference):
    assert parse_reference(reference) == parsed


def test_a_reference_names_itself_in_messages_without_secrets():
    assert parse_reference("https://me:word@host/a.wav?sig=1#row=3").name == "https://...@host/a.wav?...#row=3"
    assert parse_reference("a.tar#bytes=1-2").name == "a.tar#bytes=1-2"


def test_paths_strings_and_file_uris_are_read_alike(tmp_path: Path, wav: bytes):
    path = tmp_path / "a.wav"
    path.write_bytes(wav)
    for reference in (path, str(path), path.as_uri()):
        assert read_bytes(reference) == wav
        np.testing.assert_array_equal(read_audio(reference), decode_audio(wav, source="test"))


def test_uris_are_read_whole_and_in_part(wav: bytes):
    fsspec.filesystem("memory").pipe_file("/test_reference/a.wav", wav)
    reference = "memory://test_reference/a.wav"
    assert read_bytes(reference) == wav
    np.testing.assert_array_equal(read_audio(reference), decode_audio(wav, source="test"))
    part = read_audio(reference, start_s=0.25, duration_s=0.5)
    np.testing.assert_array_equal(part, decode_audio(wav, source="test", start_s=0.25, duration_s=0.5))


@pytest.mark.parametrize("folder", ["", "memory://test_reference"])
@pytest.mark.parametrize("num_seconds", [1, 150])
def test_members_of_a_tar_are_read_by_their_bytes(tmp_path: Path, folder: str, num_seconds: int):
    members = {f"{name}.wav": encode(noise(num_seconds, seed)) for seed, name in enumerate("abc")}
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(shard) as tar:
        spans = {member.name: (member.offset_data, member.size) for member in tar}
    if folder:
        fsspec.filesystem("memory").pipe_file("/test_reference/shard.tar", shard.read_bytes())
    for name, (start, size) in spans.items():
        reference = f"{folder or tmp_path}/shard.tar#bytes={start}-{start + size}"
        assert read_bytes(reference) == members[name]
        expected = decode_audio(members[name], source="test", start_s=0.5)
        np.testing.assert_array_equal(read_audio(reference, start_s=0.5), expected)


@pytest.mark.parametrize("location", ["{folder}/a.wav", "memory://test_reference/outside.wav"])
def test_bytes_outside_the_file_are_an_error_that_names_them(tmp_path: Path, location: str, wav: bytes):
    (tmp_path / "a.wav").write_bytes(wav)
    fsspec.filesystem("memory").pipe_file("/test_reference/outside.wav", wav)
    reference = f"{location.format(folder=tmp_path)}#bytes=10-{len(wav) + 1}"
    for duration_s in (None, 0.1):
        with pytest.raises(AudioDecodeError, match="outside the file"):
            read_audio(reference, duration_s=duration_s)


def test_a_byte_range_that_ends_before_it_starts_is_an_error():
    with pytest.raises(AudioDecodeError, match=r"a.tar#bytes=9-3.*ends before"):
        read_audio("a.tar#bytes=9-3")


def test_an_empty_byte_range_is_empty_audio(tmp_path: Path, wav: bytes):
    (tmp_path / "a.wav").write_bytes(wav)
    with pytest.raises(EmptyAudioError):
        read_audio(f"{tmp_path}/a.wav#bytes=8-8")


@pytest.mark.parametrize("reference", ["{folder}/none.wav", "{folder}/none.tar#bytes=0-4", "{folder}/no.parquet#row=0"])
def test_a_missing_file_raises_file_not_found(tmp_path: Path, reference: str):
    with pytest.raises(FileNotFoundError):
        read_audio(reference.format(folder=tmp_path))


@pytest.mark.parametrize("part", ["", "#bytes=0-4", "#row=0"])
def test_a_missing_remote_file_raises_file_not_found_with_its_name(part: str):
    for duration_s in (None, 1.0):
        with pytest.raises(FileNotFoundError, match="memory://test_reference/none"):
            read_audio(f"memory://test_reference/none{part}", duration_s=duration_s)


def test_what_is_no_file_of_this_machine_is_an_error(tmp_path: Path):
    with pytest.raises(AudioDecodeError, match="directory"):
        read_audio(f"{tmp_path}#bytes=0-4")
    with pytest.raises(AudioDecodeError, match="zero byte"):
        read_audio("a\0.wav")


class BrokenFile:
    """A file whose disk fails behind the first 100 bytes."""

    def __init__(self) -> None:
        self.head = encode(noise())[:100]
        self.position = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.position = offset
        return offset

    def readinto(self, buffer: memoryview, /) -> int:
        if self.position >= 100:
            raise OSError(errno.EIO, "Input/output error")
        num_read = min(len(buffer), 100 - self.position)
        buffer[:num_read] = self.head[self.position : self.position + num_read]
        self.position += num_read
        return num_read


def test_a_disk_that_fails_is_blamed_and_not_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.wav").touch()
    span = EncodedSpan(BrokenFile(), start=0, stop=32_044)
    monkeypatch.setattr("sottovoce.audio.reference._wrap", lambda *_arguments: span)
    for read in (read_audio, read_bytes):
        span.seek(0)
        span.fault = None
        with pytest.raises(StorageError, match=r"storage of .*a.wav does not answer.*Input/output error") as caught:
            read(tmp_path / "a.wav")
        assert isinstance(caught.value.__cause__, OSError)


def test_audio_in_parquet_rows_is_read(tmp_path: Path, wav: bytes):
    flac = encode(noise(), container="FLAC")
    audio = pa.array([{"bytes": wav, "path": "a.wav"}, {"bytes": flac, "path": "b.flac"}])
    pq.write_table(pa.table({"audio": audio, "text": ["a", "b"]}), tmp_path / "train.parquet")
    assert read_bytes(f"{tmp_path}/train.parquet#row=1") == flac
    waveform, audio_format = read_audio_with_format(f"{tmp_path}/train.parquet#row=1", start_s=0.5)
    np.testing.assert_array_equal(waveform, decode_audio(flac, source="test", start_s=0.5))
    assert audio_format.container == "flac"


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="only Linux counts the bytes a process reads")
def test_two_seconds_of_an_hour_read_less_than_a_megabyte(tmp_path: Path):
    path = tmp_path / "hour.wav"
    header = bytearray(encode(noise(0.0)))
    header[4:8] = (36 + HOUR_S * 32_000).to_bytes(4, "little")
    header[40:44] = (HOUR_S * 32_000).to_bytes(4, "little")
    wanted = (noise(2.0) * 32_767).astype("<i2")
    with path.open("wb") as file:  # 115 MB of which the disk holds the pages that were written
        file.write(header)
        file.seek(44 + 1_800 * 32_000)
        file.write(wanted.tobytes())
        file.truncate(44 + HOUR_S * 32_000)
    read_audio(path, start_s=3_000.0, duration_s=2.0)  # imports are over
    before = _num_bytes_read()
    waveform = read_audio(path, start_s=1_800.0, duration_s=2.0)
    assert _num_bytes_read() - before < 100_000  # 2 s are 64 000
    np.testing.assert_allclose(waveform, wanted / 32_768, atol=1e-7)


def _num_bytes_read() -> int:
    return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])


def test_real_speech_is_read_by_reference(shared_data: Path):
    assert len(read_audio(f"{shared_data}/jfk.flac", start_s=1.0, duration_s=2.0)) == 32_000
