import errno
from pathlib import Path

import pytest

from sottovoce.checkpoints import published
from sottovoce.checkpoints.published import published_best, read_last_state
from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.store import CheckpointStore
from sottovoce.errors import CheckpointError, CheckpointWriteError


def write(store: CheckpointStore, step: int, *, wer: float | None, is_finished: bool = False) -> None:
    state = RunState(step=step, is_finished=is_finished).model_dump_json().encode()
    model = {"checkpoint/model.safetensors": [b"weights %d" % step], "checkpoint/config.json": [b"{}"]}
    store.write({**model, "run_state.json": [state]}, step=step, wer=wer, keep_best=1)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(str(tmp_path / "store"))
    write(store, 3, wer=0.2)
    write(store, 6, wer=0.3, is_finished=True)
    return store


def test_the_best_model_replaces_the_previous_one(store: CheckpointStore, tmp_path: Path) -> None:
    target = tmp_path / "out" / "checkpoint"
    target.mkdir(parents=True)
    (target / "old").write_bytes(b"old")
    with published_best(store, target) as (best, partial):
        (partial / "README.md").write_text("card", encoding="utf-8")
        assert (target / "old").exists()
    assert best.step == 3
    assert {path.name for path in target.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert (target / "model.safetensors").read_bytes() == b"weights 3"
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def test_a_failure_leaves_the_previous_model_unchanged(store: CheckpointStore, tmp_path: Path) -> None:
    target = tmp_path / "out" / "checkpoint"
    target.mkdir(parents=True)
    (target / "old").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), published_best(store, target):
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_full_disk_is_named(store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(published, "write_file", refuse)
    with (
        pytest.raises(CheckpointWriteError, match=r"out/checkpoint: No space left on device; free some"),
        published_best(store, tmp_path / "out" / "checkpoint"),
    ):
        pass


def test_a_damaged_best_checkpoint_is_replaced_by_the_next_best(store: CheckpointStore, tmp_path: Path) -> None:
    damaged = store.committed()[1]
    (tmp_path / "store" / damaged.name / "checkpoint" / "model.safetensors").write_bytes(b"weights X")
    with published_best(store, tmp_path / "checkpoint") as (best, _):
        assert best.step == 6


def test_a_run_that_was_never_scored_has_no_best(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "store"))
    write(store, 3, wer=None)
    with (
        pytest.raises(CheckpointError, match="no checkpoint of the run was scored"),
        published_best(store, tmp_path / "a"),
    ):
        pass


def test_the_end_of_a_run_is_read_from_its_last_checkpoint(store: CheckpointStore) -> None:
    assert read_last_state(store).step == 6


def test_a_run_whose_last_checkpoint_is_damaged_is_told_to_resume(store: CheckpointStore, tmp_path: Path) -> None:
    last = store.committed()[0]
    (tmp_path / "store" / last.name / "run_state.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"written at step 3.*run the same command again"):
        read_last_state(store)


def test_a_store_without_checkpoints_has_no_end(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is none"):
        read_last_state(CheckpointStore(str(tmp_path / "nothing")))
