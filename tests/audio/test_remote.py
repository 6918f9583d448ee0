import io
import traceback
from importlib.util import find_spec

import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from sottovoce.audio.decode import decode_audio, read_audio
from sottovoce.audio.reference import read_bytes
from sottovoce.audio.remote import is_remote, redact
from sottovoce.errors import AudioDecodeError, ConfigError, StorageError

SECRETS = ("hunter22", "AKIA1234", "sig4nature")


class CountedFile(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.fetch(self.path, start, end)


class CountedFileSystem(AbstractFileSystem):
    """Files in memory, read by ranges as from an object store; all requests are noted."""

    protocol = "counted"
    files: dict[str, bytes]
    requests: list[int]
    fault: Exception | None = None

    def info(self, path: str, **_options: object) -> dict[str, object]:
        if path not in type(self).files:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.files[path]), "type": "file"}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: object) -> CountedFile:
        options.pop("autocommit", None)
        return CountedFile(self, path, mode, block_size or "default", **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_options: object) -> bytes:
        self.info(path)
        return self.fetch(path, start or 0, len(self.files[path]) if end is None else end)

    def fetch(self, path: str, start: int, end: int) -> bytes:
        if self.fault is not None:
            raise self.fault
        data = self.files[path][start:end]
        self.requests.append(len(data))
        return data


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> type[CountedFileSystem]:
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    monkeypatch.setattr(CountedFileSystem, "files", {}, raising=False)
    monkeypatch.setattr(CountedFileSystem, "requests", [], raising=False)
    monkeypatch.setattr(CountedFileSystem, "fault", None)
    monkeypatch.setattr("sottovoce.audio.remote.sleep", lambda _pause_s: None)
    return CountedFileSystem


def encode(duration_s: float, container: str = "WAV") -> bytes:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(duration_s * 16_000)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, format=container)
    return buffer.getvalue()


def test_an_entire_file_is_one_request(store: type[CountedFileSystem]):
    store.files["a.wav"] = data = encode(200.0)
    np.testing.assert_array_equal(read_audio("counted://a.wav"), decode_audio(data, source="test"))
    assert store.requests == [len(data)]


def test_a_byte_range_is_one_request_for_its_bytes(store: type[CountedFileSystem]):
    data = encode(1.0)
    store.files["a.tar"] = b"x" * 10_000 + data + b"x" * 5_000_000
    assert read_bytes(f"counted://a.tar#bytes=10000-{10_000 + len(data)}") == data
    assert store.requests == [len(data)]


def test_a_part_of_a_short_file_is_one_request(store: type[CountedFileSystem]):
    store.files["a.wav"] = data = encode(30.0)
    assert len(read_audio("counted://a.wav", duration_s=30.0)) == 480_000
    assert store.requests == [len(data)]


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_of_a_long_file_only_what_a_part_needs_travels(store: type[CountedFileSystem], container: str):
    data = encode(250.0, container)
    store.files["shard.tar"] = b"x" * 1_536 + data
    store.files["a"] = data
    expected = decode_audio(data, source="test", start_s=200.0, duration_s=2.0)
    for reference in ("counted://a", f"counted://shard.tar#bytes=1536-{1_536 + len(data)}"):
        store.requests.clear()
        np.testing.assert_array_equal(read_audio(reference, start_s=200.0, duration_s=2.0), expected)
        assert sum(store.requests) < 2_000_000
        assert len(store.requests) < 20


def test_a_long_mp3_travels_whole_since_its_frames_must_be_walked(store: type[CountedFileSystem]):
    data = encode(10.0, "MP3") * 120
    store.files["a.mp3"] = data
    assert len(data) > 4 * 2**20
    assert len(read_audio("counted://a.mp3", start_s=1.0, duration_s=2.0)) == 32_000
    assert store.requests[-1] == len(data)
    assert len(store.requests) == 2  # the first looks what it is


def test_reading_that_fails_on_the_way_is_blamed_and_not_the_recording(store: type[CountedFileSystem]):
    store.files["a.wav"] = encode(200.0)

    class BreaksLater(CountedFileSystem):
        def fetch(self, path: str, start: int, end: int) -> bytes:
            if start > 1_000_000:
                raise OSError("connection reset")
            return super().fetch(path, start, end)

    fsspec.register_implementation("counted", BreaksLater, clobber=True)
    with pytest.raises(StorageError, match=r"storage of counted://a.wav .* connection reset"):
        read_audio("counted://a.wav", start_s=100.0, duration_s=2.0)


@pytest.mark.parametrize("location", ["https://me:hunter22@host/a.wav?X-Key=AKIA1234&X-Sig=sig4nature#bytes=0-4"])
def test_secrets_of_a_uri_stay_out_of_messages(store: type[CountedFileSystem], location: str):
    location = location.replace("https", "counted")
    for fault, expected in (
        (OSError(f"no access to {location}"), StorageError),
        (ValueError(f"bad key AKIA1234 for hunter22 at {location}"), AudioDecodeError),
    ):
        store.fault = fault
        store.files[CountedFileSystem._strip_protocol(location.partition("#")[0])] = b"data"
        with pytest.raises(expected) as caught:
            read_audio(location)
        shown = "".join(traceback.format_exception(caught.value))
        assert not any(secret in shown for secret in SECRETS)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("s3://bucket/a.wav", "s3://bucket/a.wav"),
        ("https://me:pw@host/a.wav", "https://...@host/a.wav"),
        ("zip://a.wav::https://me@host/b.zip?sig=1", "zip://a.wav::https://...@host/b.zip?..."),
        ("/data/what?/me@home/a.wav", "/data/what?/me@home/a.wav"),
    ],
)
def test_a_location_is_shown_without_user_and_query(location: str, shown: str):
    assert redact(location) == shown


@pytest.mark.parametrize(
    ("location", "expected"),
    [("s3://b/a", True), ("simplecache::s3://b/a", True), ("file:///a", False), ("a/b.wav", False), ("/a:b/c", False)],
)
def test_uris_are_told_from_paths(location: str, expected: bool):
    assert is_remote(location) is expected


def test_a_protocol_whose_package_is_missing_names_the_package():
    fsspec.register_implementation(
        "absent", "absent_store.AbsentFileSystem", errtxt="Install absent_store to access it", clobber=True
    )
    with pytest.raises(ConfigError, match="Install absent_store"):
        read_audio("absent://bucket/a.wav")


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="s3fs is installed")
def test_s3_without_s3fs_says_so():
    with pytest.raises(ConfigError, match="Install s3fs"):
        read_audio("s3://bucket/a.wav")


def test_an_unknown_protocol_is_a_setting_that_cannot_be_used():
    with pytest.raises(ConfigError, match="nosuch"):
        read_audio("nosuch://bucket/a.wav")
