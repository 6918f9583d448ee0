"""What a store keeps, and in which order; what happens to it when writes fail is in test_store_faults.py."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sottovoce.checkpoints.disk import Disk, LocalDisk, RemoteDisk
from sottovoce.checkpoints.disk_files import check_file, write_file
from sottovoce.checkpoints.store import CheckpointStore
from sottovoce.errors import CheckpointCopyError, CheckpointError, StorageError


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "runs") if request.param == "local" else "memory://bucket/runs"
    MemoryFileSystem.store.clear()


def write(store: CheckpointStore, step: int, wer: float | None, *, keep_best: int = 1) -> None:
    files = {"checkpoint/model.safetensors": [b"%d" % step], "run_state.json": [b"{}"]}
    store.write(files, step=step, wer=wer, keep_best=keep_best)


def test_a_store_returns_the_newest_and_the_best_and_keeps_no_more_than_configured(root: str) -> None:
    store = CheckpointStore(root)
    for step, wer in ((0, 0.5), (10, 0.2), (20, None), (30, 0.3), (40, None)):
        write(store, step, wer)
    assert [saved.step for saved in store.committed()] == [40, 10]
    with store.latest() as newest, store.best() as best:
        assert newest is not None
        assert best is not None
        assert (newest.saved.step, best.saved.step, best.saved.wer) == (40, 10, 0.2)
        assert (best.folder / "checkpoint" / "model.safetensors").read_bytes() == b"10"


def test_more_of_the_best_are_kept_where_asked_for(root: str) -> None:
    store = CheckpointStore(root)
    for step, wer in ((1, 0.1), (2, 0.4), (3, 0.2), (4, 0.3)):
        write(store, step, wer, keep_best=3)
    assert [saved.step for saved in store.committed()] == [4, 3, 1]


def test_a_store_can_be_cleared(root: str) -> None:
    store = CheckpointStore(root)
    for step in (1, 2):
        write(store, step, 0.5)
    store.clear()
    assert store.committed() == ()
    write(store, 3, 0.5)
    assert [saved.step for saved in store.committed()] == [3]


def test_an_empty_store_has_nothing_and_makes_no_folder(root: str, tmp_path: Path) -> None:
    store = CheckpointStore(root)
    assert store.committed() == ()
    with store.latest() as newest, store.best() as best:
        assert newest is None
        assert best is None
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_a_checkpoint_can_be_fetched_alone(root: str) -> None:
    store = CheckpointStore(root)
    write(store, 1, 0.5)
    with store.latest(under="run_state.json") as newest:
        assert newest is not None
        assert (newest.folder / "run_state.json").read_bytes() == b"{}"
        if root.startswith("memory"):
            assert not (newest.folder / "checkpoint").exists()


def test_a_checkpoint_is_opened_by_name_and_one_that_is_gone_is_an_error(root: str) -> None:
    store = CheckpointStore(root)
    write(store, 1, 0.5)
    name = store.committed()[0].name
    with CheckpointStore(root).opened(name) as opened:
        assert opened.saved.step == 1
    with pytest.raises(CheckpointError, match="step-gone"), store.opened("step-gone"):
        pass


def test_a_manifest_in_another_folder_than_its_own_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    write(store, 1, 0.5)
    name = store.committed()[0].name
    (tmp_path / name).rename(tmp_path / "step-copy")
    with pytest.raises(CheckpointError, match=f"it belongs to {name}"), store.opened("step-copy"):
        pass


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "step-by-step.txt").write_text("a file", encoding="utf-8")
    store = CheckpointStore(str(tmp_path))
    for step in range(4):
        write(store, step, None)
    assert {"notes", "step-by-step.txt"} < {path.name for path in tmp_path.iterdir()}


def test_unreachable_storage_does_not_lead_to_an_older_checkpoint(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path)
    write(CheckpointStore("runs", disk=disk), 1, 0.5)
    write(CheckpointStore("runs", disk=disk), 2, 0.5)
    store = CheckpointStore("runs", disk=Unreachable(disk))
    with pytest.raises(StorageError, match=r"runs/step-00000002.*TimeoutError"), store.latest():
        pass


def test_a_machine_without_room_for_a_copy_says_so_and_does_not_blame_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore("memory://bucket/runs")
    write(store, 1, 0.5)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unmounted"))
    with pytest.raises(CheckpointCopyError, match=r"a temporary folder.*unmounted.*set TMPDIR"), store.latest():
        pass
    MemoryFileSystem.store.clear()


def test_a_full_disk_under_a_copy_is_named_as_the_place_to_free() -> None:
    disk = RemoteDisk(MemoryFileSystem(), "/bucket")
    disk.make_folder("")
    digest = write_file(disk, "weights", [b"a few bytes"])
    with pytest.raises(CheckpointCopyError, match=r"/dev/full, .*: No space left on device; free space there.*TMPDIR"):
        check_file(disk, "weights", digest, location="bucket", copy=Path("/dev/full"))
    MemoryFileSystem.store.clear()


class Unreachable:
    """A disk that lists and gives manifests, and no other file."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> object:
        return getattr(self._disk, name)

    def read(self, path: str) -> Iterator[bytes]:
        if not path.endswith("manifest.json"):
            raise TimeoutError("no answer")
        return self._disk.read(path)


def test_secrets_of_a_uri_stay_out_of_messages() -> None:
    assert CheckpointStore("memory://user:secret@bucket/runs").location == "memory://...@bucket/runs"
