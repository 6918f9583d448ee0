"""Guards on a real Ray: a stuck worker is named and replaced, an error of ours ends the run at once, NaN is skipped."""

import logging
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from tone_training import WAIT_S, read_record, signal_one_training_worker, tone_job, training_workers

from jobs.train_whisper import main
from sottovoce.checkpoints.published import read_last_state
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.data.dataset import build_stream
from sottovoce.data.manifest import read_manifest, write_manifest
from sottovoce.data.mixing import read_speech
from sottovoce.errors import NonFiniteTrainingError, StorageError, StuckWorkerError
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.train.record import add_state
from sottovoce.train.run import build_run, describe_run, run_training

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STUCK_AFTER_S = 15.0  # between two notes of a worker lie seconds where the machine is busy
NAMED_WITHIN_S = 25.0  # beats, the board and the look at it take their time on a busy machine


def change_one(tones: Path, name: str, **changes: str) -> Path:
    """Write another manifest, in which one training utterance is different."""
    changed = [one.model_copy(update=changes) if one.id == "u5" else one for one in read_manifest(tones)]
    write_manifest(changed, tones.with_name(name))
    return tones.with_name(name)


@dataclass
class Stopper:
    """Stops a training worker with SIGSTOP once a checkpoint is there."""

    output: Path
    pid: int = 0
    stopped_at: float = 0.0

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while not build_store(None, output=self.output).committed():
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        self.pid = signal_one_training_worker(signal.SIGSTOP)
        self.stopped_at = time.time()

    def join(self) -> None:
        self._thread.join()
        assert self.pid, "no checkpoint was ever saved"


class CountedStarts:
    """Counts how often the two workers of a run were started."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.2):
            self._pids |= {process.pid for process in training_workers()}

    def count(self) -> int:
        self._stopped.set()
        self._thread.join()
        return len(self._pids) // 2


def test_a_stopped_worker_is_named_in_time_and_replaced(
    local_ray: str, tones: Path, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = tone_job(
        tones, tiny_checkpoint, tmp_path / "out", num_epochs=20, evaluate_every_steps=15, stuck_after_s=STUCK_AFTER_S
    )
    stopper = Stopper(job.output)
    with caplog.at_level(logging.WARNING, logger="sottovoce.train.health.heartbeat"):
        main(job)
    stopper.join()
    # On a busy machine another worker may seem stuck too, before or after it.
    warned = [record for record in caplog.records if record.name == "sottovoce.train.health.heartbeat"]
    named, *_ = [record for record in warned if f"process {stopper.pid} on " in record.message]
    assert "has stood still for" in named.message
    assert "not even answering" in named.message
    assert named.created - stopper.stopped_at < STUCK_AFTER_S + NAMED_WITHIN_S
    assert not psutil.pid_exists(stopper.pid)
    record = read_record(job.output)
    assert 1 <= len(record.resumed_at) <= len(warned)
    assert [row.step for row in record.rows] == [0, 15, 30, 45, 60]


@pytest.mark.slow
def test_a_worker_stuck_once_too_often_is_the_error_of_the_run(
    local_ray: str, tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"num_epochs": 40, "evaluate_every_steps": 60, "stuck_after_s": STUCK_AFTER_S, "max_failures": 0}
    job = tone_job(tones, tiny_checkpoint, tmp_path / "out", **settings)
    stopper = Stopper(job.output)
    with pytest.raises(StuckWorkerError, match=r"rank [01] \(process \d+ on [\d.]+\) has stood still for .* s at step"):
        main(job)
    stopper.join()


def test_storage_that_does_not_answer_ends_the_run_at_once_with_that_very_error(
    local_ray: str, tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    faulty = change_one(tones, "storage.jsonl", audio="http://127.0.0.1:9/5.wav")
    job = tone_job(faulty, tiny_checkpoint, tmp_path / "out", max_failures=3)
    starts = CountedStarts()
    with pytest.raises(StorageError) as caught:
        main(job)
    assert type(caught.value) is StorageError
    assert str(caught.value).startswith("the storage of http://127.0.0.1:9/5.wav does not answer")
    assert "\n" not in str(caught.value)
    assert starts.count() == 1


@pytest.fixture(scope="module")
def broken_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives NaN for whatever has more than 40 tokens: one utterance of ``long_manifest``."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        checkpoint.model.model.decoder.embed_positions.weight[40:] = torch.nan
    folder = tmp_path_factory.mktemp("checkpoints") / "broken"
    save_checkpoint(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def long_manifest(tones: Path) -> Path:
    return change_one(tones, "long.jsonl", text="low middle high " * 20)


def test_steps_that_are_not_a_number_are_left_out_and_stand_in_the_record_beside_what_was_warned_of(
    local_ray: str, long_manifest: Path, broken_checkpoint: Path, tmp_path: Path
) -> None:
    job = tone_job(long_manifest, broken_checkpoint, tmp_path / "out", learning_rate=0.01, warmup_steps=0)
    speech = read_speech(job.data.manifest)
    stream, validation = build_stream(speech, job.data), speech.split("validation")
    run = build_run(job.training, train=stream, validation=validation, output=job.output)
    run_training(run)
    store = build_store(None, output=job.output)
    record = add_state(describe_run(run, prepare_rejects=()), read_last_state(store), best_step=0)
    assert record.skipped_steps == 2  # one in each epoch
    assert all(row.training_loss is not None and row.training_loss > 0.0 for row in record.rows[1:])
    assert record.rows[2].validation_loss < record.rows[0].validation_loss
    (warning,) = record.warnings
    assert warning.startswith("learning_rate 0.01 is far above what is known to work")
    with store.latest() as last:
        assert last is not None
        weights = load_checkpoint(last.folder / MODEL_FOLDER).model.state_dict()
    weights["model.decoder.embed_positions.weight"] = weights["model.decoder.embed_positions.weight"][:40]
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_too_many_of_them_end_the_run_with_the_utterance_and_what_to_try(
    local_ray: str, long_manifest: Path, broken_checkpoint: Path, tmp_path: Path
) -> None:
    job = tone_job(long_manifest, broken_checkpoint, tmp_path / "out", max_skipped_in_a_row=0, max_failures=3)
    with pytest.raises(NonFiniteTrainingError, match=r"1 steps in a row .* loss nan, .*u5.*; lower learning_rate"):
        main(job)
    assert not (job.output / "checkpoint").exists()
