"""Parse and open audio references: one string names a file, or a part of one.

clips/a.wav                          a path
s3://bucket/a.flac                   any URI that fsspec reads
shards/train-0001.tar#bytes=1536-48211   the bytes from 1536 to before 48211: a member of an uncompressed tar
hf://.../train-00000.parquet#row=17      the audio in row 17, counted from 0, of a Parquet file
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sottovoce.audio.encoded import Encoded, EncodedBytes, EncodedSpan
from sottovoce.audio.parquet_rows import read_row
from sottovoce.audio.remote import SMALL_BYTES, is_remote, name_fault, open_remote, read_remote, redact, retry
from sottovoce.errors import AudioDecodeError

_PART = re.compile(r"#(?:bytes=(?P<start>\d+)-(?P<stop>\d+)|row=(?P<row>\d+))$")


@dataclass(frozen=True, kw_only=True)
class AudioReference:
    """A parsed reference."""

    location: str
    """The file: a path or a URI."""
    start: int = 0
    """First byte of the recording in it."""
    stop: int | None = None
    """The byte after the recording; the file's end when None."""
    row: int | None = None
    """Row of a Parquet file, from 0 on."""

    @property
    def name(self) -> str:
        """The reference for messages, without a URI's secrets."""
        part = "" if self.stop is None else f"#bytes={self.start}-{self.stop}"
        return redact(self.location) + (part if self.row is None else f"#row={self.row}")


def parse_reference(reference: str | Path) -> AudioReference:
    """Parse a reference.

    Raises:
        AudioDecodeError: a byte range that ends before it starts.
    """
    text = os.fspath(reference)
    match = _PART.search(text)
    location = (text[: match.start()] if match else text).removeprefix("file://").removeprefix("local://")
    if match is None:
        return AudioReference(location=location)
    if match["row"] is not None:
        return AudioReference(location=location, row=int(match["row"]))
    parsed = AudioReference(location=location, start=int(match["start"]), stop=int(match["stop"]))
    if parsed.start > int(match["stop"]):
        raise AudioDecodeError(parsed.name, "its byte range ends before it starts")
    return parsed


@contextmanager
def open_audio(reference: str | Path, *, is_part: bool) -> Iterator[tuple[Encoded, str]]:
    """Open a recording for decoding.

    Args:
        reference: where it is.
        is_part: whether the caller may read less than the whole recording; a remote one is then read at once only if
            it is small.

    Yields:
        The encoded recording, and its name for messages.

    Raises:
        FileNotFoundError: nothing there.
        ConfigError: a protocol that is unknown, or whose package is not installed.
        AudioDecodeError: a folder, a local file that may not be read, bytes outside the file, a row outside the table.
        StorageError: a disk or a server that does not answer, or a server that denies access.
    """
    parsed = parse_reference(reference)
    if parsed.row is not None or (is_remote(parsed.location) and not is_part):
        yield EncodedBytes(_read_at_once(parsed)), parsed.name
    elif is_remote(parsed.location):
        with open_remote(parsed.location, start=parsed.start, stop=parsed.stop) as file:
            yield file, parsed.name
    else:
        with _open_local(parsed) as span:
            yield span, parsed.name


def read_bytes(reference: str | Path) -> bytes:
    """Read all encoded bytes of a recording.

    Raises:
        FileNotFoundError, ConfigError, AudioDecodeError, StorageError: as ``open_audio``.
    """
    parsed = parse_reference(reference)
    if parsed.row is not None or is_remote(parsed.location):
        return _read_at_once(parsed)
    with _open_local(parsed) as span:
        data = span.read(span.num_bytes)
        if span.fault is not None:
            raise name_fault(span.fault, parsed.name) from span.fault
        return data or b""


def _read_at_once(parsed: AudioReference) -> bytes:
    if parsed.row is not None:
        return read_row(parsed.location, parsed.row)
    return read_remote(parsed.location, start=parsed.start or None, stop=parsed.stop)


@contextmanager
def _open_local(parsed: AudioReference) -> Iterator[Encoded]:
    """Open a file of this machine; a long one is read only when decoded."""
    if "\0" in parsed.location:
        raise AudioDecodeError(repr(parsed.name), "a path holds no zero byte")
    with retry(
        lambda: Path(parsed.location).open("rb", buffering=0), parsed.name
    ) as file:  # decoders read large pieces
        num_bytes = file.seek(0, os.SEEK_END)
        stop = num_bytes if parsed.stop is None else parsed.stop
        if stop > num_bytes:
            raise AudioDecodeError(parsed.name, f"its bytes lie outside the file of {num_bytes} bytes")
        yield retry(lambda: _wrap(file, parsed.start, stop, num_bytes), parsed.name)


def _wrap(file: io.FileIO, start: int, stop: int, num_bytes: int) -> Encoded:
    """Read a short part at once; let the decoder read a whole file by its descriptor, without calls into Python."""
    if (start, stop) == (0, num_bytes):
        return EncodedSpan(file, start=0, stop=stop, descriptor=file.fileno())
    if stop - start > SMALL_BYTES:
        return EncodedSpan(file, start=start, stop=stop)
    file.seek(start)
    return EncodedBytes(file.read(stop - start))
