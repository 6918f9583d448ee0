"""A training worker that is stopped on a real Ray: named in time, replaced, and one too many ends the run."""

import logging
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tone_training import WAIT_S, read_record, signal_one_training_worker, tone_job

from benchmarks.audited_training import write_tones
from jobs.train_whisper import main
from sottovoce.checkpoints.saver import build_store
from sottovoce.errors import StuckWorkerError

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(1800)]

STUCK_AFTER_S = 15.0  # between two notes of a worker lie seconds where the machine is busy
NAMED_WITHIN_S = 25.0  # beats, the board and the look at it take their time on a busy machine


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    return write_tones(tmp_path, num_train=12, num_validation=4)


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


def test_a_worker_stuck_once_too_often_is_the_error_of_the_run(
    local_ray: str, tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"num_epochs": 40, "evaluate_every_steps": 60, "stuck_after_s": STUCK_AFTER_S, "max_failures": 0}
    job = tone_job(tones, tiny_checkpoint, tmp_path / "out", **settings)
    stopper = Stopper(job.output)
    with pytest.raises(StuckWorkerError, match=r"rank [01] \(process \d+ on [\d.]+\) has stood still for .* s at step"):
        main(job)
    stopper.join()
