"""Bytes behind any URI that fsspec knows: s3://, gs://, hf://, https://, memory:// and others.

A URI may carry a password or a signature: only ``redact``'s form of it goes into messages.
"""

import errno
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sottovoce.audio.encoded import Encoded, EncodedBytes, EncodedSpan
from sottovoce.errors import AudioDecodeError, ConfigError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SMALL_BYTES = 4 * 2**20
"""Up to here one read of everything costs less than several reads of parts (guess: 0.1 s at 300 Mbit/s)."""

_BLOCK_BYTES = 128 * 2**10  # read beyond what is asked for: 1 s of CD audio, 8 s of mp3 at 128 kbit/s (guess)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(::|://)")
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"\?[^\s#]*")


def is_remote(location: str) -> bool:
    """Say whether a location is a URI and not a path of this machine."""
    return _URI.match(location) is not None and not location.startswith(("file://", "local://"))


def redact(location: str) -> str:
    """Leave out a URI's user, password and query, where secrets stand; a path stays as it is."""
    return _QUERY.sub("?...", _USER.sub("...@", location)) if is_remote(location) else location


def open_file_system(location: str) -> "tuple[AbstractFileSystem, str]":
    """Find who reads a URI.

    Args:
        location: the URI, or a path of this machine.

    Returns:
        The file system, and its own name for the location.

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
        AudioDecodeError: it may not be read, or ends before ``stop``.
    """
    file_system, path = open_file_system(location)
    with name_faults(location):
        data: bytes = file_system.cat_file(path, start=start, end=stop)
    if stop is not None and len(data) != stop - (start or 0):
        raise AudioDecodeError(redact(location), f"bytes {start} to {stop} lie outside the file")
    return data


@contextmanager
def open_remote(location: str, *, start: int = 0, stop: int | None = None) -> Iterator[Encoded]:
    """Open a remote file of which a part may be wanted: what is small is read at once, of more only what is asked for.

    Args:
        location: the URI.
        start: first byte that belongs to it.
        stop: the byte behind it; the file's end when None.

    Raises:
        FileNotFoundError: nothing there.
        ConfigError: see ``open_file_system``.
        AudioDecodeError: it may not be read, or ends before ``stop``.
    """
    file_system, path = open_file_system(location)
    with name_faults(location):
        file = file_system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
    with file:
        with name_faults(location):
            num_bytes = file.seek(0, io.SEEK_END) if file.seekable() else None
        if num_bytes is not None and (stop or 0) > num_bytes:
            raise AudioDecodeError(redact(location), f"bytes {start} to {stop} lie outside the file of {num_bytes}")
        end = num_bytes if stop is None else stop
        span = EncodedSpan(file, start=start, stop=end or start, faults=_faults())
        if span.num_bytes > SMALL_BYTES and not _is_walked(span):
            yield span
        else:
            yield EncodedBytes(read_remote(location, start=start or None, stop=stop))


def _is_walked(span: EncodedSpan) -> bool:
    """Tell whether a place in it is found only by walking there frame by frame, as in mp3 and bare aac."""
    head = span.read(3) or b""
    span.seek(0)
    return head == b"ID3" or (head[:1] == b"\xff" and head[1] & 0xE0 == 0xE0)


@contextmanager
def name_faults(location: str) -> Iterator[None]:
    """Turn what a file system raises into errors that name the redacted location.

    Raises:
        FileNotFoundError: nothing there.
        AudioDecodeError: it may not be read, or not now.
    """
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such file", redact(location)) from None
    except _faults() as error:
        if isinstance(error, (AudioDecodeError, ConfigError)):
            raise
        raise AudioDecodeError(redact(location), f"it cannot be read: {_scrub(error, location)}") from None


def _faults() -> tuple[type[Exception], ...]:
    """Name what file systems raise: aiohttp's errors, alone among the clients', are no OSError."""
    from aiohttp import ClientError  # costs 100 ms

    return (OSError, ValueError, ClientError)


def _scrub(error: Exception, location: str) -> str:
    """Give an error's kind and words without the secrets of the URI it may quote."""
    words = str(error).replace(location, redact(location))
    for secret in _secrets(location):
        words = words.replace(secret, "...")
    return f"{type(error).__name__} {words}".rstrip()


def _secrets(location: str) -> list[str]:
    user = [part for found in _USER.findall(location) for part in (found[:-1], *found[:-1].split(":"))]
    query = [part for found in _QUERY.findall(location) for part in (found[1:], *re.split("[&=]", found[1:]))]
    return sorted({part for part in (*user, *query) if len(part) > 3}, key=len, reverse=True)
