"""The storage of checkpoints: a folder of this machine, or any storage that fsspec can write to.

A disk offers single steps only: the caller decides the order of the steps, and so what is on the disk if one fails, and
a test can make each of them fail. Paths are relative to the disk's root, with ``/``; the root itself is the empty path.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sottovoce.atomic_write import sync_folder
from sottovoce.audio.remote import open_file_system

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK_BYTES = 8 * 2**20
"""Size of a block that is read, hashed or written: large enough to release Python's lock for milliseconds (guess)."""


class Entry(NamedTuple):
    """A file or folder in a folder."""

    name: str
    is_folder: bool


class NewFile(Protocol):
    """A file open for writing."""

    def write(self, data: memoryview, /) -> int:
        """Write bytes; return how many were written."""

    def sync(self) -> None:
        """Wait until the written bytes survive a power loss; does nothing if closing guarantees it."""

    def close(self) -> None:
        """Close the file."""


class Disk(Protocol):
    """The steps of reading and writing; each raises the error of its storage, in most cases an OSError."""

    @property
    def renames_folders(self) -> bool:
        """Whether a folder can be renamed atomically with its content."""

    def make_folder(self, path: str) -> None:
        """Make a folder and its parents if they are missing."""

    def create(self, path: str) -> NewFile:
        """Open a new file for writing."""

    def rename(self, path: str, new_path: str) -> None:
        """Rename a file, or a folder if ``renames_folders``."""

    def sync_folder(self, path: str) -> None:
        """Wait until the names in a folder survive a power loss."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder; a missing one is not an error."""

    def entries(self, path: str) -> list[Entry]:
        """List a folder; empty if it does not exist."""

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in blocks."""

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""

    def folder(self, path: str) -> Path | None:
        """Return the local folder, or None if the storage is remote."""


def open_disk(root: str) -> Disk:
    """Find the disk behind a path or URI.

    Raises:
        ConfigError: a protocol that is unknown, or whose package is not installed.
    """
    from fsspec.implementations.local import LocalFileSystem  # costs 50 ms, and importing this file must be cheap

    file_system, path = open_file_system(root)
    return LocalDisk(Path(path)) if isinstance(file_system, LocalFileSystem) else RemoteDisk(file_system, path)


class LocalDisk:
    """A folder of this machine, or a mounted one."""

    renames_folders = True

    def __init__(self, root: Path) -> None:
        self._root = root

    def make_folder(self, path: str) -> None:
        """Make a folder and its parents, and sync the folders that hold their names."""
        folder = self._root / path
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for one in missing:
            sync_folder(one.parent)

    def create(self, path: str) -> NewFile:
        """Open a new file for writing; raises FileExistsError if it exists."""
        return _LocalFile(self._root / path)

    def rename(self, path: str, new_path: str) -> None:
        """Rename a file or a folder, atomically."""
        (self._root / path).rename(self._root / new_path)

    def sync_folder(self, path: str) -> None:
        """Sync a folder."""
        sync_folder(self._root / path)

    def remove(self, path: str) -> None:
        """Remove a file."""
        (self._root / path).unlink()

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        folder = self._root / path
        if folder.is_dir():
            folder.rmdir()

    def entries(self, path: str) -> list[Entry]:
        """List a folder."""
        folder = self._root / path
        try:
            with os.scandir(folder) as found:
                return sorted(Entry(one.name, one.is_dir()) for one in found)
        except FileNotFoundError:
            return []

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in blocks."""
        with (self._root / path).open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        return (self._root / path).stat().st_size

    def folder(self, path: str) -> Path | None:
        """Return the local folder."""
        return self._root / path


class RemoteDisk:
    """Storage behind fsspec; a file exists once it is closed, and folders cannot be renamed."""

    renames_folders = False

    def __init__(self, file_system: "AbstractFileSystem", root: str) -> None:
        self._files, self._root = file_system, root.rstrip("/")

    def make_folder(self, path: str) -> None:
        """Make a folder if the storage has folders."""
        self._files.makedirs(self._path(path), exist_ok=True)

    def create(self, path: str) -> NewFile:
        """Open a file for writing; an existing one is replaced."""
        return _RemoteFile(self._files.open(self._path(path), "wb"))

    def rename(self, path: str, new_path: str) -> None:
        """Rename a file; object stores copy it, and the copy appears as a whole or not at all."""
        self._files.mv(self._path(path), self._path(new_path))

    def sync_folder(self, path: str) -> None:
        """Do nothing: the storage keeps what it has acknowledged."""

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._files.rm_file(self._path(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it still exists after its files were removed."""
        if self._files.exists(self._path(path)):
            self._files.rm(self._path(path), recursive=True)

    def entries(self, path: str) -> list[Entry]:
        """List a folder without the cache, since other processes write there too."""
        self._files.invalidate_cache()
        folder = self._path(path)
        try:
            found = self._files.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        names = [(str(one["name"]).rstrip("/"), one["type"] == "directory") for one in found]
        own = folder.strip("/")
        return sorted(Entry(name.rpartition("/")[2], is_folder) for name, is_folder in names if name.strip("/") != own)

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in blocks."""
        with self._files.open(self._path(path), "rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def size(self, path: str) -> int:
        """Return the size of a file in bytes, as the storage reports it."""
        self._files.invalidate_cache()
        return int(self._files.size(self._path(path)))

    def folder(self, path: str) -> Path | None:
        """Return None: the storage is remote."""
        return None

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)

    def write(self, data: memoryview, /) -> int:
        return self._file.write(data)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _RemoteFile:
    def __init__(self, file: Any) -> None:  # noqa: ANN401 - fsspec's files have no type
        self._file = file

    def write(self, data: memoryview, /) -> int:
        self._file.write(data)  # buffered: all bytes are accepted, but some file systems return None
        return len(data)

    def sync(self) -> None:
        """Do nothing: the storage keeps what it acknowledges when the file is closed."""

    def close(self) -> None:
        self._file.close()
