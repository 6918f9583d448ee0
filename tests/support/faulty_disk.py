"""Disks for tests: one that fails at a chosen call, and one that forgets what was not synced when the power goes."""

import errno
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from sottovoce.checkpoints.disk import Disk, Entry, NewFile

Fault: TypeAlias = Literal["no space", "I/O error", "cut short", "killed"]
FAULTS: tuple[Fault, ...] = ("no space", "I/O error", "cut short", "killed")


class Killed(BaseException):
    """The process has ended here: nothing that runs after it may catch it or reach the disk."""


def kill() -> None:
    raise Killed


class FaultyDisk:
    """Pass everything on to another disk, but fail at one call of those that write.

    Args:
        disk: what is passed on to.
        fault: "no space" lasts, for all but removals; an "I/O error" happens once; "cut short" writes half of it, or
            does nothing, and reports success; "killed" writes half of it, and no call does anything afterwards.
        at: number of the call, from 1 on; never for 0, which counts calls.
        on_kill: what ends the process.
    """

    def __init__(self, disk: Disk, fault: Fault = "killed", *, at: int = 0, on_kill: Callable[[], None] = kill) -> None:
        self.num_calls = 0
        self._disk, self._fault, self._at, self._on_kill = disk, fault, at, on_kill
        self.renames_folders = disk.renames_folders

    def attempt(
        self, effect: Callable[[], None], half: Callable[[], None] | None = None, *, frees: bool = False
    ) -> None:
        """Do one thing, half of it, or nothing."""
        self.num_calls += 1
        is_due = self.num_calls == self._at
        if self._fault == "killed" and 0 < self._at <= self.num_calls:
            if is_due and half is not None:
                half()
            self._on_kill()
        if self._fault == "no space" and 0 < self._at <= self.num_calls and not frees:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self._fault == "I/O error" and is_due:
            raise OSError(errno.EIO, "Input/output error")
        if self._fault == "cut short" and is_due:
            if half is not None:
                half()
            return
        effect()

    def make_folder(self, path: str) -> None:
        self.attempt(lambda: self._disk.make_folder(path))

    def create(self, path: str) -> NewFile:
        created: list[NewFile] = []
        self.attempt(lambda: created.append(self._disk.create(path)))
        return _FaultyFile(created[0] if created else _Nowhere(), self)

    def rename(self, path: str, new_path: str) -> None:
        self.attempt(lambda: self._disk.rename(path, new_path))

    def sync_folder(self, path: str) -> None:
        self.attempt(lambda: self._disk.sync_folder(path))

    def remove(self, path: str) -> None:
        self.attempt(lambda: self._disk.remove(path), frees=True)

    def remove_folder(self, path: str) -> None:
        self.attempt(lambda: self._disk.remove_folder(path), frees=True)

    def entries(self, path: str) -> list[Entry]:
        return self._disk.entries(path)

    def read(self, path: str) -> Iterator[bytes]:
        return self._disk.read(path)

    def size(self, path: str) -> int:
        return self._disk.size(path)

    def folder(self, path: str) -> Path | None:
        return self._disk.folder(path)


class _FaultyFile:
    def __init__(self, file: NewFile, disk: FaultyDisk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: memoryview, /) -> int:
        half = data[: len(data) // 2]
        self._disk.attempt(lambda: _write_all(self._file, data), lambda: _write_all(self._file, half))
        return len(data)

    def sync(self) -> None:
        self._disk.attempt(self._file.sync)

    def close(self) -> None:
        try:
            self._disk.attempt(lambda: None)
        finally:
            self._file.close()  # a process that ends, or is told of an error, holds no file any more


class _Nowhere:
    """A file that was said to be open and is not."""

    def write(self, data: memoryview, /) -> int:
        return len(data)

    def sync(self) -> None: ...

    def close(self) -> None: ...


def _write_all(file: NewFile, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


@dataclass
class _File:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass
class _Folder:
    entries: dict[str, "_File | _Folder"] = field(default_factory=dict)
    """As programs see them."""
    unsynced: list[dict[str, "_File | _Folder"]] = field(default_factory=lambda: [{}])
    """As they were when last synced, and after each change since: any of these may be what a loss of power leaves."""

    def note(self) -> None:
        self.unsynced.append(dict(self.entries))

    def sync(self) -> None:
        self.unsynced = [dict(self.entries)]


class VolatileDisk:
    """A disk in memory that keeps for certain only what was synced; the order of everything else is its own."""

    renames_folders = True

    def __init__(self, root: _Folder | None = None) -> None:
        self._root = root or _Folder()

    def after_power_loss(self, chance: random.Random) -> "VolatileDisk":
        """Return the disk as it may come back."""
        left = _left_of_folder(self._root, chance)
        return VolatileDisk(left)

    def make_folder(self, path: str) -> None:
        folder = self._root
        for name in _parts(path):
            if name not in folder.entries:
                folder.entries[name] = _Folder()
                folder.sync()
            folder = _as_folder(folder.entries[name])

    def create(self, path: str) -> NewFile:
        folder, name = self._parent(path)
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, "File exists")
        file = folder.entries[name] = _File()
        folder.note()
        return _VolatileFile(file)

    def rename(self, path: str, new_path: str) -> None:
        folder, name = self._parent(path)
        new_folder, new_name = self._parent(new_path)
        assert folder is new_folder, "only renames within a folder are modelled"
        if name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file")
        folder.entries[new_name] = folder.entries.pop(name)
        folder.note()

    def sync_folder(self, path: str) -> None:
        self._folder(path).sync()

    def remove(self, path: str) -> None:
        folder, name = self._parent(path)
        if not isinstance(folder.entries.get(name), _File):
            raise FileNotFoundError(errno.ENOENT, "No such file")
        del folder.entries[name]
        folder.note()

    def remove_folder(self, path: str) -> None:
        folder, name = self._parent(path)
        if name not in folder.entries:
            return
        if _as_folder(folder.entries[name]).entries:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        del folder.entries[name]
        folder.note()

    def entries(self, path: str) -> list[Entry]:
        try:
            folder = self._folder(path)
        except FileNotFoundError:
            return []
        return sorted(Entry(name, isinstance(one, _Folder)) for name, one in folder.entries.items())

    def read(self, path: str) -> Iterator[bytes]:
        yield bytes(self._file(path).content)

    def size(self, path: str) -> int:
        return len(self._file(path).content)

    def folder(self, path: str) -> Path | None:
        return None

    def _file(self, path: str) -> _File:
        folder, name = self._parent(path)
        file = folder.entries.get(name)
        if not isinstance(file, _File):
            raise FileNotFoundError(errno.ENOENT, "No such file")
        return file

    def _parent(self, path: str) -> tuple[_Folder, str]:
        *above, name = _parts(path)
        return self._folder("/".join(above)), name

    def _folder(self, path: str) -> _Folder:
        folder = self._root
        for name in _parts(path):
            if name not in folder.entries:
                raise FileNotFoundError(errno.ENOENT, "No such folder")
            folder = _as_folder(folder.entries[name])
        return folder


class _VolatileFile:
    def __init__(self, file: _File) -> None:
        self._file = file

    def write(self, data: memoryview, /) -> int:
        taken = data[:5]  # a disk may take less than it is given
        self._file.content += taken
        return len(taken)

    def sync(self) -> None:
        self._file.synced = bytes(self._file.content)

    def close(self) -> None: ...


def _left_of_folder(folder: _Folder, chance: random.Random) -> _Folder:
    entries = chance.choice(folder.unsynced)
    left = {
        name: _left_of_folder(one, chance) if isinstance(one, _Folder) else _left_of_file(one, chance)
        for name, one in entries.items()
    }
    return _Folder(dict(left), [dict(left)])


def _left_of_file(file: _File, chance: random.Random) -> _File:
    """Return what was synced, or any such thing as file systems leave of what was not."""
    content = bytes(file.content)
    if content != file.synced:
        cut = chance.randrange(len(content) + 1)
        content = chance.choice((content, file.synced, content[:cut], content[:cut] + bytes(len(content) - cut)))
    return _File(bytearray(content), content)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _as_folder(one: _File | _Folder) -> _Folder:
    if not isinstance(one, _Folder):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    return one
