"""A run's state is saved and restored bit by bit, through memory, a thread and storage."""

import logging
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from faulty_disk import FaultyDisk

from sottovoce.checkpoints.disk import LocalDisk
from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.saver import Saver, build_store, resolve_root
from sottovoce.checkpoints.state import MODEL_FOLDER, load_training_state, read_resumed, read_run_state
from sottovoce.checkpoints.store import CheckpointStore, Opened
from sottovoce.errors import CheckpointError, CheckpointWriteError, ConfigError
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.train.objective import WhisperObjective


class Training:
    """A model and its optimizer, as a worker has them."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint: Checkpoint = load_checkpoint(folder)
        self.accelerator = Accelerator(cpu=True)
        objective = WhisperObjective(self.checkpoint.model, label_smoothing=0.0)
        weights = list(objective.parameters())
        groups = [{"params": weights[:3], "weight_decay": 0.0}, {"params": weights[3:], "weight_decay": 0.1}]
        self.optimizer = self.accelerator.prepare(torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.99), fused=True))

    def step(self) -> None:
        for weight in self.checkpoint.model.parameters():
            weight.grad = torch.randn(weight.shape)
        self.optimizer.step()

    def weights(self) -> torch.Tensor:
        return torch.nn.utils.parameters_to_vector(self.checkpoint.model.parameters()).detach().clone()

    def saver(self, store: CheckpointStore) -> Saver:
        return Saver(self.checkpoint, self.accelerator, self.optimizer, store=store, keep_best=1)


@pytest.fixture
def training(tiny_checkpoint: Path) -> Training:
    return Training(tiny_checkpoint)


def newest(store: CheckpointStore) -> Opened:
    with store.latest() as opened:
        assert opened is not None
        return opened


def test_a_saved_run_resumes_as_if_it_had_never_stopped(training: Training, tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    training.step()
    with training.saver(store) as saver:
        saver.save(RunState(step=1), wer=0.5)
        training.step()  # the copy is what counts, not what the weights are when they are written
    training.step()
    drawn = random.random(), float(np.random.rand()), float(torch.rand(1))
    folder = newest(store).folder
    resumed = Training(folder / MODEL_FOLDER)
    load_training_state(folder, resumed.accelerator, resumed.optimizer)
    resumed.step()
    resumed.step()
    assert torch.equal(resumed.weights(), training.weights())
    assert (random.random(), float(np.random.rand()), float(torch.rand(1))) == drawn
    assert resumed.optimizer.param_groups[1]["betas"] == (0.8, 0.99)
    assert read_resumed(folder).resumed_at == (1,)


def test_the_models_files_are_those_that_save_checkpoint_writes(training: Training, tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "store"))
    with training.saver(store) as saver:
        saver.save(RunState(), wer=None)
    save_checkpoint(training.checkpoint, tmp_path / "expected")
    folder = newest(store).folder / MODEL_FOLDER
    expected = {path.name: path.read_bytes() for path in (tmp_path / "expected").iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert "model.safetensors" in expected


def test_nothing_in_a_checkpoint_is_a_pickle(training: Training, tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    training.step()
    with training.saver(store) as saver:
        saver.save(RunState(step=1), wer=None)
    suffixes = {Path(name).suffix for name in newest(store).saved.files}
    assert suffixes <= {".safetensors", ".json", ".txt"}


class SlowStore(CheckpointStore):
    """A store that waits for a sign before it writes."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.may_write = threading.Event()
        self.num_writing = 0

    def write(self, files: object, **settings: object) -> object:  # type: ignore[override]
        self.num_writing += 1
        assert self.may_write.wait(60.0)
        return super().write(files, **settings)  # type: ignore[arg-type]


def test_training_continues_while_a_checkpoint_is_written_and_the_next_save_waits_for_it(
    training: Training, tmp_path: Path
) -> None:
    store = SlowStore(str(tmp_path))
    with training.saver(store) as saver:
        saver.save(RunState(step=1), wer=None)
        assert store.committed() == ()
        threading.Timer(0.2, store.may_write.set).start()
        saver.save(RunState(step=2), wer=None)
        assert [saved.step for saved in store.committed()][-1] == 1
    assert [saved.step for saved in store.committed()] == [2, 1]


def full_store(root: Path, *, after: int) -> CheckpointStore:
    return CheckpointStore(str(root), disk=FaultyDisk(LocalDisk(root), "no space", at=after))


def test_a_write_that_failed_is_raised_at_the_next_save(training: Training, tmp_path: Path) -> None:
    saver = training.saver(full_store(tmp_path, after=3))
    saver.save(RunState(step=1), wer=None)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        saver.save(RunState(step=2), wer=None)
    saver.close()


def test_a_last_write_that_failed_is_raised_at_the_end(training: Training, tmp_path: Path) -> None:
    saver = training.saver(full_store(tmp_path, after=3))
    saver.save(RunState(step=1), wer=None)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        saver.close()
    saver.close()


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_write(
    training: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> None:
        with training.saver(full_store(tmp_path, after=3)) as saver:
            saver.save(RunState(step=1), wer=None)
            raise ZeroDivisionError("the run's own")

    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError, match="the run's own"):
        run()
    assert "No space left on device" in caplog.text


def test_a_full_disk_destroys_no_earlier_checkpoint(training: Training, tmp_path: Path) -> None:
    with training.saver(CheckpointStore(str(tmp_path))) as saver:
        saver.save(RunState(step=1), wer=0.5)
    saver = training.saver(full_store(tmp_path, after=9))
    saver.save(RunState(step=2), wer=0.4)
    with pytest.raises(CheckpointWriteError):
        saver.close()
    assert newest(CheckpointStore(str(tmp_path))).saved.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [newest(CheckpointStore(str(tmp_path))).saved.name]


def test_state_of_another_model_is_refused(training: Training, tmp_path: Path) -> None:
    training.step()
    with training.saver(CheckpointStore(str(tmp_path))) as saver:
        saver.save(RunState(step=1), wer=None)
    folder = newest(CheckpointStore(str(tmp_path))).folder
    other = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))])
    with pytest.raises(CheckpointError, match="its training state does not fit this run"):
        load_training_state(folder, training.accelerator, other)


def test_a_state_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="start the run in a new folder"):
        read_run_state(tmp_path)


def test_a_run_at_its_end_is_not_noted_as_resumed(tmp_path: Path) -> None:
    (tmp_path / "run_state.json").write_text(RunState(step=6, is_finished=True).model_dump_json(), encoding="utf-8")
    assert read_resumed(tmp_path).resumed_at == ()


def test_checkpoints_are_below_the_output_or_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert build_store(None, output=tmp_path / "run").location == str(tmp_path / "run" / "checkpoints")
    assert build_store("memory://bucket/all/", output=tmp_path / "run").location == "memory://bucket/all/run"
    assert resolve_root("kept") == str(tmp_path / "kept")
    assert resolve_root("file:///kept") == "file:///kept"
    assert resolve_root("s3://bucket/kept") == "s3://bucket/kept"
    assert resolve_root(None) is None


def test_memory_that_other_processes_do_not_see_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="seen by one process only"):
        resolve_root("memory://kept")
