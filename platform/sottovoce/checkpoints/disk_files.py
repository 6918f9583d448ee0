"""Whole files on a disk: written with their digest, compared with it, removed; and what the errors of a disk mean."""

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
"""Errors of a file that is not there or cannot be read from its medium; any other may pass."""
_REMEDIES = {
    errno.ENOSPC: "free some space there, or name another place in the setting checkpoints",
    errno.EDQUOT: "free some of your quota there, or name another place in the setting checkpoints",
    errno.EROFS: "let this user write there, or name another place in the setting checkpoints",
    errno.EACCES: "let this user write there, or name another place in the setting checkpoints",
    errno.EPERM: "let this user write there, or name another place in the setting checkpoints",
    errno.EIO: "look after the disk, or name another place in the setting checkpoints",
}
_REMEDY = "see that the storage can be reached and written to"


def write_file(disk: Disk, path: str, content: Iterable[bytes | memoryview]) -> FileDigest:
    """Write a new file, sync it, and give the digest of what it was given to hold."""
    digest, size = hashlib.sha256(), 0
    with closing(disk.create(path)) as file:
        for block in _blocks(content):
            digest.update(block)
            size += len(block)
            rest = block
            while rest:  # a file may take less than it is given
                rest = rest[file.write(rest) :]
        file.sync()
    return FileDigest(size=size, sha256=digest.hexdigest())


def check_file(disk: Disk, path: str, expected: FileDigest, *, location: str, copy: Path | None = None) -> None:
    """Read a file and compare it with its digest.

    Args:
        disk: where it is.
        path: its path there.
        expected: what it must be.
        location: the disk's own place, for errors.
        copy: receives what was read.

    Raises:
        CheckpointError: the file is not what it must be, or not there.
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
        raise CheckpointError(name, "its sha256 is not that of what was written")


def check_size(size: int, expected: FileDigest, *, name: str) -> None:
    """Compare a file's bytes with those it had.

    Raises:
        CheckpointError: there are more or fewer.
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
    """Give a folder on this machine, which goes with the block.

    Raises:
        CheckpointCopyError: none can be made.
    """
    try:
        folder = TemporaryDirectory(prefix="sottovoce-checkpoint-")
    except OSError as error:  # of which tempfile says itself where it looked
        raise CheckpointCopyError("a temporary folder", str(error)) from error
    with folder:
        yield Path(folder.name)


def remove_tree(disk: Disk, path: str) -> None:
    """Remove a folder and all that is in it."""
    for entry in disk.entries(path):
        if entry.is_folder:
            remove_tree(disk, f"{path}/{entry.name}")
        else:
            disk.remove(f"{path}/{entry.name}")
    disk.remove_folder(path)


def name_read_fault(error: Exception, name: str) -> SottovoceError:
    """Tell damage, which another checkpoint can stand in for, from storage that does not answer."""
    if isinstance(error, SottovoceError):
        return error
    if isinstance(error, OSError) and (error.errno in _DAMAGE or isinstance(error, FileNotFoundError)):
        return CheckpointError(name, f"it cannot be read: {_describe(error)}")
    return StorageError(name, _describe(error))


def name_write_fault(error: Exception, name: str) -> CheckpointWriteError:
    """Say what could not be written, why, and what to do."""
    if isinstance(error, SottovoceError):  # a CheckpointError: read back, it was not what had been written
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
    """Pass on what is written to a file of this machine."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("wb") as file:
            for block in blocks:
                file.write(block)
                yield block
    except SottovoceError:  # of where the blocks come from
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
