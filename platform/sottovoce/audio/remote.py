"""Read bytes from any URI that fsspec knows: s3://, gs://, hf://, https://, memory:// and others.

A URI may contain a password or a signature, so messages contain only what ``redact`` returns.

Storage errors are of three kinds: the file does not exist (FileNotFoundError); it can never be read as asked
(AudioDecodeError; its row is rejected); storage does not answer now or denies access (StorageError; no stage counts
the row as bad). The last kind is raised after retries for half a minute: s3fs, gcsfs and huggingface_hub retry some
faults themselves, fsspec's own http and local disks none.
"""

import errno
import io
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol, TypeVar

from sottovoce.audio.encoded import Encoded, EncodedBytes, EncodedSpan, ReadableFile
from sottovoce.errors import AudioDecodeError, ConfigError, SottovoceError, StorageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SMALL_BYTES = 4 * 2**20
"""Up to this size, one read of the whole file costs less than several of parts (guess: 0.1 s at 300 Mbit/s)."""

_BLOCK_BYTES = 128 * 2**10  # read beyond what is asked for: 1 s of CD audio, 8 s of mp3 at 128 kbit/s (guess)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(::|://)")
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"\?[^\s#]*")

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 14.0)  # doubling, as clients of object stores do; half of each is random
_PATIENCE_S = 30.0  # from the first attempt to the last: a server that restarts is back by then
_SETTLED = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV}
)
"""Errors of a path or of what is there; a retry does not help."""
_SETTLED_STATUS = (414, 416, 451)  # of HTTP: name too long, a range outside the file, withheld by law
_GONE_STATUS = (404, 410)
_PASSING_STATUS = (408, 425, 429)  # and 500 on: timeout, too early, too many requests
_CLIENT_ERRORS = (  # of clients whose errors are no OSError, by the module that must be loaded before one can be raised
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
    ("httpx", "HTTPError"),
)

_Result = TypeVar("_Result")


def is_remote(location: str) -> bool:
    """Whether a location is a URI and not a path of this machine."""
    return _URI.match(location) is not None and not location.startswith(("file://", "local://"))


def redact(location: str) -> str:
    """Replace a URI's user, password and query, which may hold secrets, by dots; return a path unchanged."""
    return _QUERY.sub("?...", _USER.sub("...@", location)) if is_remote(location) else location


def open_file_system(location: str) -> "tuple[AbstractFileSystem, str]":
    """Return the file system that reads a URI.

    Args:
        location: the URI, or a path of this machine.

    Returns:
        The file system, and its path of the location.

    Raises:
        ConfigError: a protocol that is unknown, or whose package is not installed (the message names it).
    """
    from fsspec.core import url_to_fs  # costs 50 ms, and most references are local

    try:
        file_system, path = url_to_fs(location)
    except ImportError as error:
        raise ConfigError(f"{redact(location)} cannot be read on this machine: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{redact(location)} cannot be read: {_scrub(error, location)}") from None
    return file_system, path


def read_remote(location: str, *, start: int | None = None, stop: int | None = None) -> bytes:
    """Read a whole remote file, or the bytes from ``start`` to before ``stop``, in one request.

    Raises:
        FileNotFoundError: nothing there.
        ConfigError: see ``open_file_system``.
        AudioDecodeError: a folder, or it ends before ``stop``.
        StorageError: storage does not answer, or denies access.
    """
    file_system, path = open_file_system(location)
    data: bytes = retry(lambda: file_system.cat_file(path, start=start, end=stop), location)
    if stop is not None and len(data) != stop - (start or 0):
        raise AudioDecodeError(redact(location), f"bytes {start} to {stop} lie outside the file")
    return data


@contextmanager
def open_remote(location: str, *, start: int = 0, stop: int | None = None) -> Iterator[Encoded]:
    """Open a remote file to read a part: a small one is read at once; of a large one, only what the decoder asks for.

    Args:
        location: the URI.
        start: first byte of the recording.
        stop: the byte after the last one; the file's end when None.

    Raises:
        FileNotFoundError, ConfigError, AudioDecodeError, StorageError: as ``read_remote``.
    """
    file_system, path = open_file_system(location)
    with retry(lambda: file_system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead"), location) as raw:
        file = PatientFile(raw, location)
        num_bytes = file.seek(0, io.SEEK_END) if raw.seekable() else None
        if num_bytes is not None and (stop or 0) > num_bytes:
            raise AudioDecodeError(redact(location), f"bytes {start} to {stop} lie outside the file of {num_bytes}")
        end = num_bytes if stop is None else stop
        span = EncodedSpan(file, start=start, stop=end or start, faults=(OSError, AudioDecodeError))
        if span.num_bytes > SMALL_BYTES and not _is_walked(span):
            yield span
        else:
            yield EncodedBytes(read_remote(location, start=start or None, stop=stop))


def _is_walked(span: EncodedSpan) -> bool:
    """Whether seeking in it means reading frame by frame, as in mp3 and bare aac."""
    head = span.read(3) or b""
    span.seek(0)
    return head == b"ID3" or (head[:1] == b"\xff" and head[1] & 0xE0 == 0xE0)


class _OpenFile(ReadableFile, Protocol):
    def tell(self) -> int: ...

    def read(self, num_bytes: int = -1, /) -> bytes: ...


class PatientFile:
    """An open file, local or remote, that retries when storage fails, and keeps the last error.

    Args:
        file: the open file; its opener closes it.
        location: where it is.
    """

    closed = False

    def __init__(self, file: _OpenFile, location: str) -> None:
        self.fault: Exception | None = None
        """The last error; readers written in C may replace it by another."""
        self._file, self._location = file, location

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte."""
        return self._try(lambda: self._file.seek(offset, whence))

    def read(self, num_bytes: int = -1, /) -> bytes:
        """Read bytes."""
        position = self._file.tell()
        return self._try(lambda: self._file.read(num_bytes), position)

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer as far as there are bytes."""
        position = self._file.tell()
        return self._try(lambda: self._file.readinto(buffer), position)

    def _try(self, read: Callable[[], _Result], position: int | None = None) -> _Result:
        def attempt() -> _Result:
            if position is not None:
                self._file.seek(position)
            return read()

        try:
            return retry(attempt, self._location)
        except (OSError, AudioDecodeError) as error:
            self.fault = error
            raise


def retry(read: Callable[[], _Result], location: str) -> _Result:
    """Call a function that reads from storage; retry for half a minute while the error may be temporary.

    Raises:
        FileNotFoundError: nothing there.
        AudioDecodeError: it can never be read as asked.
        StorageError: storage does not answer; at once if it denies access.
    """
    started = monotonic()
    for pause_s in (*_PAUSES_S, None):
        try:
            return read()
        except client_errors() as error:
            fault = name_fault(error, location)
            wait_s = None if pause_s is None or not _may_pass(error) else pause_s * random.uniform(0.5, 1.0)
            if not isinstance(fault, StorageError) or wait_s is None or monotonic() - started + wait_s > _PATIENCE_S:
                raise fault from None
        sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def name_fault(error: Exception, location: str) -> Exception:
    """Return the FileNotFoundError, AudioDecodeError or StorageError for an error of storage; it names no secrets."""
    if isinstance(error, SottovoceError):
        return error
    error = _origin(error)
    status = _status(error)
    if status in _GONE_STATUS or isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such file", redact(location))
    if _is_settled(error, status, location):
        return AudioDecodeError(redact(location), f"it cannot be read: {_scrub(error, location)}")
    return StorageError(redact(location), _scrub(error, location))


def client_errors() -> tuple[type[Exception], ...]:
    """Return the exception classes of storage and of those of its clients that are imported."""
    loaded = [(sys.modules.get(module), name) for module, name in _CLIENT_ERRORS]
    return (OSError, ValueError, *(getattr(module, name) for module, name in loaded if hasattr(module, name)))


def _origin(error: Exception) -> Exception:
    """Return the cause of an error: fsspec's http raises FileNotFoundError for every failure to open."""
    cause = error.__cause__
    is_hidden = isinstance(error, FileNotFoundError) and not isinstance(cause, ValueError)
    return _origin(cause) if is_hidden and isinstance(cause, client_errors()) else error


def _is_settled(error: Exception, status: int | None, location: str) -> bool:
    if status is not None:
        return status in _SETTLED_STATUS
    if isinstance(error, PermissionError):
        return not is_remote(location)  # elsewhere it is credentials, and they are everybody's
    if isinstance(error, OSError):
        return error.errno in _SETTLED or isinstance(error, (IsADirectoryError, NotADirectoryError))
    return isinstance(error, ValueError)


def _may_pass(error: Exception) -> bool:
    origin = _origin(error)
    status = _status(origin)
    if status is not None:
        return status in _PASSING_STATUS or status >= 500
    return not isinstance(origin, (PermissionError, SottovoceError))


def _status(error: Exception) -> int | None:
    """Return the HTTP status in an error of aiohttp, requests, httpx or gcsfs; None if it has none."""
    holders = (error, getattr(error, "response", None))
    found = (getattr(holder, name, None) for holder in holders for name in ("status", "status_code", "code"))
    return next((status for status in found if isinstance(status, int) and 100 <= status < 600), None)


def _scrub(error: Exception, location: str) -> str:
    """Return an error's class and message without the secrets of the URI it may quote."""
    words = str(error).replace(location, redact(location))
    for secret in _secrets(location):
        words = words.replace(secret, "...")
    return f"{type(error).__name__} {words}".rstrip()


def _secrets(location: str) -> list[str]:
    user = [part for found in _USER.findall(location) for part in (found[:-1], *found[:-1].split(":"))]
    query = [part for found in _QUERY.findall(location) for part in (found[1:], *re.split("[&=]", found[1:]))]
    return sorted({part for part in (*user, *query) if len(part) > 3}, key=len, reverse=True)
