import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from aiohttp import ClientPayloadError
from fsspec.implementations.memory import MemoryFileSystem
from storage_server import storage_server

from sottovoce.audio import parquet_rows
from sottovoce.audio.decode import decode_audio, read_audio
from sottovoce.audio.encoded import EncodedSpan
from sottovoce.audio.reference import read_bytes
from sottovoce.audio.remote import retry
from sottovoce.errors import AudioDecodeError, AudioError, StorageError


class ShakyFileSystem(MemoryFileSystem):
    """Raises ``faults``, one for each call, before it answers."""

    protocol = "shaky"
    store: dict[str, object] = {}  # noqa: RUF012
    faults: list[Exception] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("shaky://").lstrip("/")

    def open(self, path: str, *arguments: object, **options: object) -> object:
        if self.faults:
            raise self.faults.pop(0)
        return super().open(path, *arguments, **options)

    def cat_file(self, path: str, **options: object) -> bytes:
        if self.faults:
            raise self.faults.pop(0)
        return super().cat_file(path, **options)


def encode(duration_s: float = 1.0) -> bytes:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(duration_s * 16_000)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr("sottovoce.audio.remote.sleep", made.append)
    return made


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    fsspec.register_implementation("shaky", ShakyFileSystem, clobber=True)
    monkeypatch.setattr(ShakyFileSystem, "faults", [])
    ShakyFileSystem().pipe_file("/a.wav", encode())
    yield ShakyFileSystem.faults
    ShakyFileSystem.store.clear()


class StatusError(Exception):
    """What gcsfs raises."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@pytest.fixture(autouse=True)
def _clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sottovoce.audio.remote._CLIENT_ERRORS", (("aiohttp", "ClientError"), (__name__, "StatusError"))
    )


PASSING = [
    TimeoutError("timed out"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    OSError(errno.EBUSY, "SlowDown"),
    OSError(errno.EIO, "Input/output error"),
    ClientPayloadError("not enough data"),
    StatusError(503),
    StatusError(429),
]


@pytest.mark.parametrize("duration_s", [None, 0.5])
@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_storage_that_fails_twice_and_then_answers_costs_no_row(
    faults: list[Exception], pauses: list[float], fault: Exception, duration_s: float | None
):
    faults += [fault, fault]
    found = read_audio("shaky://a.wav", duration_s=duration_s)
    np.testing.assert_array_equal(found, decode_audio(encode(), source="test", duration_s=duration_s))
    assert len(pauses) == 2


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_storage_that_never_answers_is_no_fault_of_the_recording(
    faults: list[Exception], pauses: list[float], fault: Exception
):
    faults += [fault] * 100
    with pytest.raises(StorageError, match=r"the storage of shaky://a.wav does not answer") as caught:
        read_audio("shaky://a.wav")
    assert not isinstance(caught.value, AudioError)
    assert len(pauses) == 6
    assert 14.0 < sum(pauses) < 30.0


def test_a_slow_timeout_is_not_waited_for_again_and_again(faults: list[Exception], monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("sottovoce.audio.remote.sleep", lambda _pause_s: None)
    monkeypatch.setattr("sottovoce.audio.remote.monotonic", lambda: clock[0])

    def time_out() -> bytes:
        clock[0] += 20.0
        raise TimeoutError

    with pytest.raises(StorageError):
        retry(time_out, "shaky://a.wav")
    assert clock[0] == 40.0


@pytest.mark.parametrize("fault", [PermissionError(errno.EACCES, "ExpiredToken"), StatusError(403), StatusError(401)])
def test_wrong_credentials_fail_at_once_and_reject_no_row(
    faults: list[Exception], pauses: list[float], fault: Exception
):
    faults += [fault] * 3
    with pytest.raises(StorageError, match=r"shaky://a.wav"):
        read_audio("shaky://a.wav")
    assert not pauses


@pytest.mark.parametrize(
    "fault", [IsADirectoryError("a.wav"), OSError(errno.ENAMETOOLONG, "File name too long"), StatusError(416)]
)
def test_what_can_never_be_read_is_a_fault_of_the_row(faults: list[Exception], pauses: list[float], fault: Exception):
    faults.append(fault)
    with pytest.raises(AudioDecodeError, match=r"shaky://a.wav"):
        read_audio("shaky://a.wav")
    assert not pauses


@pytest.mark.parametrize("fault", [FileNotFoundError("a.wav"), StatusError(404), StatusError(410)])
def test_what_is_gone_is_not_found(faults: list[Exception], pauses: list[float], fault: Exception):
    faults.append(fault)
    with pytest.raises(FileNotFoundError, match=r"shaky://a.wav"):
        read_audio("shaky://a.wav")
    assert not pauses


@pytest.fixture
def server() -> Iterator[str]:
    with storage_server(encode(0.1)) as url:
        yield url


@pytest.mark.parametrize("duration_s", [None, 0.05])
@pytest.mark.parametrize(
    ("path", "expected"),
    [("503/2/a", None), ("503/999/a", StorageError), ("403/999/a", StorageError), ("404/999/a", FileNotFoundError)],
)
def test_a_real_web_server_says_what_it_means(
    server: str, pauses: list[float], path: str, expected: type[Exception] | None, duration_s: float | None
):
    if expected is None:
        assert len(read_audio(f"{server}/{path}", duration_s=duration_s)) == (1_600 if duration_s is None else 800)
    else:
        with pytest.raises(expected, match=f"{server}/{path}"):
            read_audio(f"{server}/{path}", duration_s=duration_s)
    assert bool(pauses) is path.startswith("503")


def test_a_server_that_is_down_is_no_missing_file(pauses: list[float]):
    for duration_s in (None, 0.5):
        with pytest.raises(StorageError, match=r"http://127.0.0.1:9/a.wav"):
            read_audio("http://127.0.0.1:9/a.wav", duration_s=duration_s)
    assert len(pauses) == 12


def test_a_disk_that_fails_once_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]):
    (tmp_path / "a.wav").write_bytes(encode())
    faults = [OSError(errno.ESTALE, "Stale file handle")]
    real_open = Path.open

    def open_shakily(path: Path, *arguments: object, **options: object) -> object:
        if faults:
            raise faults.pop()
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_shakily)
    assert read_bytes(tmp_path / "a.wav") == encode()
    assert len(pauses) == 1


def test_a_disk_that_fails_below_the_decoder_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.wav"
    path.write_bytes(encode()[:20_000])  # libsndfile reads by the file's number, and sees nothing but an early end
    with pytest.raises(AudioDecodeError, match="truncated"):
        read_audio(path)

    def fail(span: EncodedSpan, _buffer: object) -> int:
        span.fault = OSError(errno.EIO, "Input/output error")
        return 0

    monkeypatch.setattr(EncodedSpan, "readinto", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        read_audio(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_local_file_that_may_not_be_read_is_a_fault_of_the_row(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(encode())
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(AudioDecodeError, match="PermissionError"):
        read_audio(tmp_path / "a.wav")


@pytest.fixture
def shard(faults: list[Exception]) -> Iterator[str]:
    parquet_rows._kept.clear()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"audio": [encode()] * 3, "text": ["a"] * 3}), buffer)
    ShakyFileSystem().pipe_file("/a.parquet", buffer.getvalue())
    yield "shaky://a.parquet"
    parquet_rows._kept.clear()


def test_rows_of_a_table_behind_shaky_storage_are_read(shard: str, faults: list[Exception], pauses: list[float]):
    faults += PASSING[:2]
    assert read_bytes(f"{shard}#row=1") == encode()
    assert len(pauses) == 2


@pytest.mark.parametrize("num_reads", [0, 1])
def test_a_table_whose_storage_fails_midway_is_not_called_damaged(
    shard: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch, num_reads: int
):
    from fsspec.implementations.memory import MemoryFile

    counted = [0]
    real_read = MemoryFile.read

    def read(file: MemoryFile, num_bytes: int = -1) -> bytes:
        counted[0] += 1
        if counted[0] > num_reads:
            raise TimeoutError("timed out")
        return real_read(file, num_bytes)

    monkeypatch.setattr(MemoryFile, "read", read)
    with pytest.raises(StorageError, match=r"shaky://a.parquet"):
        read_bytes(f"{shard}#row=1")
    assert len(pauses) == 6


def test_a_table_with_damaged_pages_is_a_fault_of_its_rows(shard: str, pauses: list[float]):
    data = bytearray(ShakyFileSystem().cat_file("/a.parquet"))
    data[4:2_000] = b"\xff" * 1_996
    ShakyFileSystem().pipe_file("/a.parquet", bytes(data))
    with pytest.raises(AudioDecodeError, match="no readable Parquet file"):
        read_bytes(f"{shard}#row=1")
    assert not pauses
