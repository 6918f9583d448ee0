import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sottovoce.checkpoints.disk import Disk, Entry, LocalDisk, RemoteDisk, open_disk
from sottovoce.checkpoints.disk_files import (
    check_file,
    name_read_fault,
    name_write_fault,
    remove_tree,
    write_file,
)
from sottovoce.checkpoints.saved import FileDigest
from sottovoce.errors import CheckpointError, CheckpointWriteError, ConfigError, StorageError


@pytest.fixture(params=["local", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    yield open_disk(str(tmp_path / "new") if request.param == "local" else "memory://bucket/new")
    MemoryFileSystem.store.clear()


def test_paths_and_file_uris_are_local_and_others_are_remote(tmp_path: Path) -> None:
    assert isinstance(open_disk(str(tmp_path)), LocalDisk)
    assert isinstance(open_disk(f"file://{tmp_path}"), LocalDisk)
    assert isinstance(open_disk("memory://bucket"), RemoteDisk)


def test_an_unknown_protocol_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        open_disk("nowhere://bucket/runs")


def test_what_is_written_is_listed_read_renamed_and_removed(disk: Disk) -> None:
    assert disk.entries("") == []
    disk.make_folder("a/b")
    digest = write_file(disk, "a/b/one", [b"first ", b"", memoryview(b"second")])
    assert (disk.size("a/b/one"), digest.size) == (12, 12)
    check_file(disk, "a/b/one", digest, location="here")
    disk.rename("a/b/one", "a/b/two")
    disk.sync_folder("a/b")
    assert disk.entries("") == [Entry("a", is_folder=True)]
    assert disk.entries("a/b") == [Entry("two", is_folder=False)]
    remove_tree(disk, "a")
    assert disk.entries("") == []
    remove_tree(disk, "a")


def test_a_checked_file_can_be_copied_on_the_way(disk: Disk, tmp_path: Path) -> None:
    disk.make_folder("a")
    digest = write_file(disk, "a/one", [b"content"])
    check_file(disk, "a/one", digest, location="here", copy=tmp_path / "copies" / "one")
    assert (tmp_path / "copies" / "one").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (FileDigest(size=6, sha256=""), "here/a/one: it has 7 bytes and was written with 6"),
        (FileDigest(size=7, sha256="00"), "here/a/one: its sha256 differs from that of the written content"),
    ],
)
def test_a_damaged_file_is_named(disk: Disk, expected: FileDigest, message: str) -> None:
    disk.make_folder("a")
    write_file(disk, "a/one", [b"content"])
    with pytest.raises(CheckpointError, match=message):
        check_file(disk, "a/one", expected, location="here")


def test_a_missing_file_is_damage_and_unreachable_storage_is_not(disk: Disk) -> None:
    with pytest.raises(CheckpointError, match="here/gone: it cannot be read"):
        check_file(disk, "gone", FileDigest(size=1, sha256=""), location="here")
    assert isinstance(name_read_fault(OSError(errno.EIO, ""), "a"), CheckpointError)
    assert isinstance(name_read_fault(TimeoutError("no answer"), "a"), StorageError)
    assert isinstance(name_read_fault(PermissionError(errno.EACCES, ""), "a"), StorageError)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; free some space there, or name another location in the setting"),
        (errno.EDQUOT, "free some of your quota"),
        (errno.EROFS, "Read-only file system; let this user write there"),
        (errno.EIO, "check the disk"),
        (errno.ETIMEDOUT, "check that the storage can be reached"),
    ],
)
def test_a_refused_write_says_where_why_and_what_to_do(number: int, remedy: str) -> None:
    error = name_write_fault(OSError(number, "x"), "s3://bucket/runs/a/step-1")
    assert isinstance(error, CheckpointWriteError)
    assert "cannot write checkpoint s3://bucket/runs/a/step-1" in str(error)
    assert remedy in str(error)
    assert "the checkpoints before it are kept" in str(error)


def test_a_failed_read_back_points_to_the_disk() -> None:
    error = name_write_fault(CheckpointError("a/one", "it has 3 bytes and was written with 7"), "a")
    assert "it has 3 bytes and was written with 7; check the disk" in str(error)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_mount_that_cannot_sync_folders_is_used_and_one_that_fails_to_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    disk = LocalDisk(tmp_path)
    if number == errno.EINVAL:
        disk.sync_folder("")
    else:
        with pytest.raises(OSError, match="Input/output error"):
            disk.sync_folder("")
