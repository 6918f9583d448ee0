"""Trainings of a few steps on tones: how Ray's tests of training start them, watch them and kill their workers."""

import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

from jobs.train_whisper import TrainJob
from sottovoce.checkpoints.saver import build_store
from sottovoce.data.dataset import DatasetConfig
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord

NUM_TRAIN, NUM_VALIDATION = 12, 4
WAIT_S = 240.0


def tone_job(manifest: Path, base: Path, output: Path, **training: object) -> TrainJob:
    """Two workers, two utterances each at a step: three steps in an epoch."""
    settings = {
        "base": str(base),
        "device": "cpu",
        "num_epochs": 2,
        "learning_rate": 1e-4,
        "evaluate_every_steps": 3,
        "log_every_steps": 1,
    }
    return TrainJob(
        data=DatasetConfig(manifest=manifest, batch_size=2, steps_per_task=2),
        training=TrainingConfig.model_validate(settings | training),
        output=output,
    )


def read_record(output: Path) -> TrainingRecord:
    return TrainingRecord.model_validate_json((output / "record.json").read_text(encoding="utf-8"))


def _reported_step(output: Path) -> int:
    """The step the run would resume from; -1 before the first checkpoint."""
    return max((saved.step for saved in build_store(None, output=output).committed()), default=-1)


def wait_for_step(output: Path, step: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while _reported_step(output) < step:
        assert time.monotonic() < deadline, f"step {step} was never saved"
        time.sleep(0.05)


def training_workers() -> list[psutil.Process]:
    """The training workers among this process's own descendants."""
    return [process for process in psutil.Process().children(recursive=True) if _is_training_worker(process)]


def _is_training_worker(process: psutil.Process) -> bool:
    try:
        return any("RayTrainWorker" in part for part in process.cmdline())
    except psutil.NoSuchProcess:  # ended since it was listed, or a zombie, which has no command line
        return False


def kill_one_training_worker() -> int:
    """Send SIGKILL to one of them; gives its process id."""
    return signal_one_training_worker(signal.SIGKILL)


def signal_one_training_worker(number: signal.Signals) -> int:
    """Send a signal to one of them, and wait for one where none runs just now; gives its process id."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        workers = training_workers()
        with suppress(psutil.NoSuchProcess):  # it ended by itself just then
            if workers:
                victim = random.choice(workers)
                victim.send_signal(number)
                return int(victim.pid)
        time.sleep(0.05)
    raise TimeoutError("there was never a training worker")
