"""Write files on a disk, verify them by their digest, remove them, and explain a disk's errors."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sottovoce.audio.remote import client_errors
from sottovoce.checkpoints.disk import BLOCK_BYTES, Disk
from sottovoce.checkpoints.saved import FileDigest
from sottovoce.errors import (
    CheckpointCopyError,
    CheckpointError,
    CheckpointWriteError,
    SottovoceError,
    StorageError,
)

_DAMAGE = frozenset(
    {errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.EBADMSG, errno.EILSEQ}
    | {getattr(errno, name) for name in ("EUCLEAN", "ENODATA", "EREMOTEIO") if hasattr(errno, name)}
)
"""Errors that mean a missing or unreadable file; any other may be temporary."""
_REMEDIES = {
    errno.ENOSPC: "free some space there, or name another location in the setting checkpoints",
    errno.EDQUOT: "free some of your quota there, or name another location in the setting checkpoints",
    errno.EROFS: "let this user write there, or name another location in the setting checkpoints",
    errno.EACCES: "let this user write there, or name another location in the setting checkpoints",
    errno.EPERM: "let this user write there, or name another location in the setting checkpoints",
    errno.EIO: "check the disk, or name another location in the setting checkpoints",
}
_REMEDY = "check that the storage can be reached and written to"


def write_file(disk: Disk, path: str, content: Iterable[bytes | memoryview]) -> FileDigest:
    """Write a new file and sync it; return the digest of the content."""
    digest, size = hashlib.sha256(), 0
    with closing(disk.create(path)) as file:
        for block in _blocks(content):
            digest.update(block)
            size += len(block)
            rest = block
            while rest:  # a write may accept only a part
                rest = rest[file.write(rest) :]
        file.sync()
    return FileDigest(size=size, sha256=digest.hexdigest())


def check_file(disk: Disk, path: str, expected: FileDigest, *, location: str, copy: Path | None = None) -> None:
    """Read a file and verify it against its digest.

    Args:
        disk: the storage.
        path: the file's path on the disk.
        expected: its size and hash.
        location: path or URI of the disk, for errors.
        copy: local file that receives the content; None for no copy.

    Raises:
        CheckpointError: the file is damaged or missing.
        StorageError: the disk does not answer.
        CheckpointCopyError: the copy cannot be written.
    """
    digest, size, name = hashlib.sha256(), 0, f"{location}/{path}"
    blocks = _read(disk, path, name)
    for block in blocks if copy is None else _copied(blocks, copy):
        digest.update(block)
        size += len(block)
    check_size(size, expected, name=name)
    if digest.hexdigest() != expected.sha256:
        raise CheckpointError(name, "its sha256 differs from that of the written content")


def check_size(size: int, expected: FileDigest, *, name: str) -> None:
    """Compare the size of a file with the expected one.

    Raises:
        CheckpointError: they differ.
    """
    if size != expected.size:
        raise CheckpointError(name, f"it has {size} bytes and was written with {expected.size}")


def read_file(disk: Disk, path: str, *, location: str) -> bytes:
    """Read a small file.

    Raises:
        CheckpointError, StorageError: as ``check_file``.
    """
    return b"".join(_read(disk, path, f"{location}/{path}"))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a local folder that is removed when the block ends.

    Raises:
        CheckpointCopyError: it cannot be made.
    """
    try:
        folder = TemporaryDirectory(prefix="sottovoce-checkpoint-")
    except OSError as error:  # tempfile's message says where it looked
        raise CheckpointCopyError("a temporary folder", str(error)) from error
    with folder:
        yield Path(folder.name)


def remove_tree(disk: Disk, path: str) -> None:
    """Remove a folder and its content."""
    for entry in disk.entries(path):
        if entry.is_folder:
            remove_tree(disk, f"{path}/{entry.name}")
        else:
            disk.remove(f"{path}/{entry.name}")
    disk.remove_folder(path)


def name_read_fault(error: Exception, name: str) -> SottovoceError:
    """Return the error to raise for a failed read: a damaged file, which has substitutes, or unreachable storage."""
    if isinstance(error, SottovoceError):
        return error
    if isinstance(error, OSError) and (error.errno in _DAMAGE or isinstance(error, FileNotFoundError)):
        return CheckpointError(name, f"it cannot be read: {_describe(error)}")
    return StorageError(name, _describe(error))


def name_write_fault(error: Exception, name: str) -> CheckpointWriteError:
    """Return the error to raise for a failed write: what could not be written, why, and what to do."""
    if isinstance(error, SottovoceError):  # a CheckpointError: the content read back differs from what was written
        remedy = _REMEDIES[errno.EIO] if isinstance(error, CheckpointError) else _REMEDY
        return CheckpointWriteError(name, f"{error}; {remedy}")
    number = error.errno if isinstance(error, OSError) else None
    return CheckpointWriteError(name, f"{_describe(error)}; {_REMEDIES.get(number or 0, _REMEDY)}")


def _read(disk: Disk, path: str, name: str) -> Iterator[bytes]:
    try:
        yield from disk.read(path)
    except client_errors() as error:
        raise name_read_fault(error, name) from error


def _copied(blocks: Iterable[bytes], copy: Path) -> Iterator[bytes]:
    """Yield the blocks while writing them to a local file."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("wb") as file:
            for block in blocks:
                file.write(block)
                yield block
    except SottovoceError:  # raised by the source of the blocks
        raise
    except OSError as error:
        raise CheckpointCopyError(str(copy), _describe(error)) from error


def _blocks(content: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    for part in content:
        view = memoryview(part)
        if view.nbytes:  # an empty view cannot be cast
            data = view.cast("B")
            yield from (data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES))


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)  # without the file's name, which stands in our sentence
    return f"{type(error).__name__}: {error}"
