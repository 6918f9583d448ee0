"""Any write of a checkpoint may fail or be the last: a reader finds the new checkpoint intact, or the previous one."""

import logging
import os
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_disk import FAULTS, Fault, FaultyDisk, Killed, VolatileDisk
from fsspec.implementations.memory import MemoryFileSystem

from sottovoce.checkpoints.disk import Disk, LocalDisk, RemoteDisk
from sottovoce.checkpoints.store import MANIFEST_FILE, CheckpointStore
from sottovoce.errors import CheckpointWriteError, NoGoodCheckpointError

MIN_POINTS = 30
STORAGES = ("local", "memory")


def files_of(step: int) -> dict[str, list[bytes]]:
    """A small checkpoint that differs from any other in every file."""
    return {
        "checkpoint/config.json": [b'{"step": %d}' % step],
        "checkpoint/model.safetensors": [b"header", bytes(random.Random(step).randbytes(37))],
        "training/optimizer.safetensors": [bytes(random.Random(-step).randbytes(23))],
        "run_state.json": [b"step %d" % step],
    }


def contents_of(step: int) -> dict[str, bytes]:
    return {path: b"".join(parts) for path, parts in files_of(step).items()}


def write(disk: Disk, step: int, *, wer: float | None = None) -> None:
    CheckpointStore("/runs/a", disk=disk).write(files_of(step), step=step, wer=wer, keep_best=1)


def read(disk: Disk) -> int | None:
    """Load the newest intact checkpoint, compare every byte, and return its step."""
    with CheckpointStore("/runs/a", disk=disk).latest() as opened:
        if opened is None:
            return None
        loaded = {path: (opened.folder / path).read_bytes() for path in opened.saved.files}
        assert loaded == contents_of(opened.saved.step)
        return opened.saved.step


class Storages:
    """Copies of a storage that holds the checkpoints of steps 1, the best, and 2."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind, self._folder = kind, folder
        self._first = self._open("first")
        write(self._first, 1, wer=0.1)
        write(self._first, 2, wer=0.2)

    def copy(self) -> Disk:
        name = uuid.uuid4().hex
        if self._kind == "local":
            shutil.copytree(self._folder / "first", self._folder / name)
        else:
            memory = MemoryFileSystem()
            for path in memory.find(f"{self._folder}/first"):
                memory.pipe_file(path.replace("/first/", f"/{name}/"), memory.cat_file(path))
        return self._open(name)

    def _open(self, name: str) -> Disk:
        if self._kind == "local":
            return LocalDisk(self._folder / name)
        return RemoteDisk(MemoryFileSystem(), f"{self._folder}/{name}")


@pytest.fixture(autouse=True)
def _no_real_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take milliseconds, and only a loss of power shows what they do: that is VolatileDisk's."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=STORAGES)
def storages(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storages]:
    yield Storages(request.param, tmp_path)
    MemoryFileSystem.store.clear()


def count_calls(storages: Storages) -> int:
    disk = FaultyDisk(storages.copy())
    write(disk, 3)
    return disk.num_calls


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_write_leaves_the_new_checkpoint_or_the_one_before(storages: Storages, fault: Fault) -> None:
    num_calls = count_calls(storages)
    assert num_calls >= MIN_POINTS
    for at in range(1, num_calls + 1):
        disk = storages.copy()
        try:
            write(FaultyDisk(disk, fault, at=at), 3)
        except (CheckpointWriteError, Killed):
            reported = True
        else:
            reported = False
        step = read(disk)
        assert step == 3 or (step == 2 and reported), f"{fault} at call {at} of {num_calls}: step {step}"
        assert fault != "killed" or all_are_whole(disk), (
            f"killed at call {at}: half a checkpoint looks like a whole one"
        )
        write(disk, 4)
        assert read(disk) == 4, f"{fault} at call {at}: the next checkpoint"
        assert not unfinished(disk), f"{fault} at call {at}: what was left unfinished has been swept away"


def all_are_whole(disk: Disk) -> bool:
    store = CheckpointStore("/runs/a", disk=disk)
    for saved in store.committed():
        with store.opened(saved.name) as opened:
            assert opened.saved == saved
    return True


def unfinished(disk: Disk) -> list[str]:
    names = [entry.name for entry in disk.entries("")]
    return [name for name in names if MANIFEST_FILE not in {entry.name for entry in disk.entries(name)}]


def test_a_full_disk_is_named_with_what_to_do_about_it(storages: Storages) -> None:
    with pytest.raises(CheckpointWriteError, match=r"/runs/a/step-00000003.*No space left on device; free some space"):
        write(FaultyDisk(storages.copy(), "no space", at=5), 3)


# Python 3.12 and later warn of a fork where there are threads, torch's: a lock they hold stays locked. The child takes
# none of theirs, only writes files; dozens of new processes would import torch each.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.slow
def test_a_process_killed_at_any_write_of_a_real_disk_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    storages = Storages("local", tmp_path)
    num_calls = count_calls(storages)
    for at in range(1, num_calls + 1):
        disk = storages.copy()
        child = os.fork()
        if child == 0:
            write(FaultyDisk(disk, at=at, on_kill=lambda: os._exit(9)), 3)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert read(disk) in (2, 3)


@pytest.mark.parametrize("num_seeds", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_what_was_not_synced_when_the_power_went_is_never_needed(num_seeds: int) -> None:
    counted = FaultyDisk(volatile_disk())
    write(counted, 3)
    num_lost = 0
    for at in range(1, counted.num_calls + 2):
        for seed in range(num_seeds):
            disk = volatile_disk()
            try:
                write(FaultyDisk(disk, at=at), 3)
                was_written = True
            except Killed:
                was_written = False
            left = disk.after_power_loss(random.Random(seed))
            step = read(left)
            assert step == 3 or (step == 2 and not was_written), f"power lost at call {at}, seed {seed}: step {step}"
            num_lost += step == 2
            write(left, 4)
            assert read(left) == 4
    assert counted.num_calls >= MIN_POINTS
    assert num_lost > num_seeds * counted.num_calls // 6  # the disk did forget


def volatile_disk() -> VolatileDisk:
    disk = VolatileDisk()
    write(disk, 1, wer=0.1)
    write(disk, 2, wer=0.2)
    return disk


def live(disk: Disk, chance: random.Random, *, from_step: int, num_steps: int) -> int:
    """Resume a run from a disk until it ends or is killed; return the last step that was reported as saved."""
    store = CheckpointStore("/runs/a", disk=disk)
    with store.latest() as opened:
        kept = 0 if opened is None else opened.saved.step
    assert kept >= from_step, f"step {from_step} had been written and is lost: the run goes on from {kept}"
    try:
        while kept < num_steps:
            wer = chance.choice((None, 1.0, 1.0 / (kept + 1)))
            store.write(files_of(kept + 1), step=kept + 1, wer=wer, keep_best=2)
            kept += 1
    except Killed:
        pass
    return kept


@pytest.mark.parametrize(("num_steps", "num_deaths"), [(40, 30), pytest.param(400, 400, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_always_resumes_from_a_good_checkpoint(
    num_steps: int, num_deaths: int
) -> None:
    chance = random.Random(0)
    disk, kept, num_killed = VolatileDisk(), 0, 0
    while kept < num_steps:
        kept = live(FaultyDisk(disk, at=chance.randrange(1, 90)), chance, from_step=kept, num_steps=num_steps)
        num_killed += kept < num_steps
        if chance.random() < 0.5:  # not the process alone: the power goes
            disk = disk.after_power_loss(chance)
        assert (read(disk) or 0) >= kept
    assert num_killed >= num_deaths


def flip(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def lose(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [flip, cut, lose, None])
def test_damage_to_any_file_is_refused_by_name_and_the_one_before_is_used(
    storages: Storages, damage: Callable[[bytes], bytes] | None, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (*files_of(2), MANIFEST_FILE):
        disk = storages.copy()
        newest = CheckpointStore("/runs/a", disk=disk).committed()[0]
        damage_file(disk, f"{newest.name}/{path}", damage)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read(disk) == 1
        assert f"{newest.name}/{path}" in caplog.text or (damage is None and "was never finished" in caplog.text)
        write(disk, 3)
        assert read(disk) == 3
        assert newest.name not in {entry.name for entry in disk.entries("")} or damage is not None


def damage_file(disk: Disk, path: str, damage: Callable[[bytes], bytes] | None) -> None:
    content = b"".join(disk.read(path))
    disk.remove(path)
    if damage is not None:
        file = disk.create(path)
        file.write(memoryview(damage(content)))
        file.close()


def test_a_run_without_an_intact_checkpoint_does_not_silently_start_again(storages: Storages) -> None:
    disk = storages.copy()
    for saved in CheckpointStore("/runs/a", disk=disk).committed():
        damage_file(disk, f"{saved.name}/run_state.json", flip)
    with pytest.raises(NoGoodCheckpointError, match=r"no checkpoint in /runs/a .*step-00000002.*; .*step-00000001"):
        read(disk)


def test_a_refused_checkpoint_stays_until_a_newer_one_is_there_and_is_no_reason_to_remove_a_good_one(
    storages: Storages,
) -> None:
    disk = storages.copy()
    best = CheckpointStore("/runs/a", disk=disk).committed()[1]
    newest = CheckpointStore("/runs/a", disk=disk).committed()[0]
    damage_file(disk, f"{newest.name}/run_state.json", flip)
    store = CheckpointStore("/runs/a", disk=disk)
    with store.latest() as opened:
        assert opened is not None
        assert opened.saved == best
    assert any(entry.name == newest.name for entry in disk.entries(""))
    store.write(files_of(3), step=3, wer=None, keep_best=1)
    assert [saved.step for saved in store.committed()] == [3, 1]


def test_storage_that_holds_only_unfinished_checkpoints_begins_anew_and_says_so(
    storages: Storages, caplog: pytest.LogCaptureFixture
) -> None:
    disk = storages.copy()
    for saved in CheckpointStore("/runs/a", disk=disk).committed():
        disk.remove(f"{saved.name}/{MANIFEST_FILE}")
    assert read(disk) is None
    assert caplog.text.count("was never finished") == 2
