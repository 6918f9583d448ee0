"""Guards on a real Ray: a stuck worker is named and replaced, an error of ours ends the run at once, NaN is skipped."""

import logging
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch

from jobs.train_whisper import TrainJob, main
from sottovoce.data.dataset import DatasetConfig
from sottovoce.data.manifest import read_manifest, write_manifest
from sottovoce.errors import NonFiniteTrainingError, StorageError, StuckWorkerError
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.record import TrainingRecord
from sottovoce.train.saver import build_store
from sottovoce.train.settings import TrainingConfig

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

NUM_TRAIN, NUM_VALIDATION = 12, 4
WAIT_S = 240.0
STUCK_AFTER_S = 8.0


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of 0.5 to 2 s; what they are called is their text."""
    folder = tmp_path_factory.mktemp("corpus")
    utterances = []
    for i in range(NUM_TRAIN + NUM_VALIDATION):
        num_samples = 8_000 + 1_500 * i
        soundfile.write(folder / f"{i}.wav", 0.3 * np.sin(np.arange(num_samples) * (0.05 + 0.02 * (i % 3))), 16_000)
        utterances.append(
            Utterance(
                id=f"u{i}",
                audio=str(folder / f"{i}.wav"),
                duration_s=num_samples / 16_000,
                text=("low", "middle", "high")[i % 3],
                split="train" if i < NUM_TRAIN else "validation",
            )
        )
    write_manifest(utterances, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def job_for(manifest: Path, base: Path, output: Path, **training: object) -> TrainJob:
    """Two workers, two utterances each at a step: three steps in an epoch."""
    settings = {"base": str(base), "device": "cpu", "num_epochs": 2, "evaluate_every_steps": 3, "log_every_steps": 1}
    return TrainJob(
        data=DatasetConfig(manifest=manifest, batch_size=2, steps_per_task=2),
        training=TrainingConfig.model_validate(settings | training),
        output=output,
    )


def wait_for_step(output: Path, step: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while max((saved.step for saved in build_store(None, output=output).committed()), default=-1) < step:
        assert time.monotonic() < deadline, f"step {step} was never saved"
        time.sleep(0.05)


def training_workers() -> list[psutil.Process]:
    """Those among this process's own descendants."""
    children = psutil.Process().children(recursive=True)
    own = [process for process in children if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in own if any("RayTrainWorker" in part for part in process.cmdline())]


@dataclass
class Stopper:
    """Stops one training worker after another with SIGSTOP, each time a checkpoint is there."""

    output: Path
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        self.pids: list[int] = []
        self.stopped_at: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for step in self.steps:
            wait_for_step(self.output, step)
            workers: list[psutil.Process] = []
            while not workers:
                workers = [process for process in training_workers() if process.pid not in self.pids]
            victim = random.choice(workers)
            self.pids.append(victim.pid)
            self.stopped_at.append(time.time())
            os.kill(victim.pid, signal.SIGSTOP)

    def join(self) -> None:
        self._thread.join()


def test_a_stopped_worker_is_named_in_time_and_replaced(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_for(
        manifest, tiny_checkpoint, tmp_path / "out", num_epochs=20, evaluate_every_steps=15, stuck_after_s=STUCK_AFTER_S
    )
    stopper = Stopper(job.output, (0,))
    with caplog.at_level(logging.WARNING, logger="sottovoce.train.heartbeat"):
        main(job)
    stopper.join()
    named = [record for record in caplog.records if "stood still" in record.message]
    assert len(named) == 1
    assert f"process {stopper.pids[0]} on " in named[0].message
    assert "not even answering" in named[0].message
    assert named[0].created - stopper.stopped_at[0] < STUCK_AFTER_S + 5.0
    assert not psutil.pid_exists(stopper.pids[0])
    found = TrainingRecord.model_validate_json((job.output / "record.json").read_text(encoding="utf-8"))
    assert len(found.resumed_at) == 1
    assert [row.step for row in found.rows] == [0, 15, 30, 45, 60]


def test_a_worker_stuck_once_too_often_is_the_error_of_the_run(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"num_epochs": 40, "evaluate_every_steps": 60, "stuck_after_s": STUCK_AFTER_S, "max_failures": 0}
    job = job_for(manifest, tiny_checkpoint, tmp_path / "out", **settings)
    stopper = Stopper(job.output, (0,))
    with pytest.raises(StuckWorkerError, match=r"rank [01] \(process \d+ on [\d.]+\) has stood still for .* s at step"):
        main(job)
    stopper.join()


def test_storage_that_does_not_answer_ends_the_run_at_once_with_that_very_error(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    faulty, address = manifest.with_name("faulty.jsonl"), "http://127.0.0.1:9/5.wav"
    utterances = read_manifest(manifest)
    write_manifest([one.model_copy(update={"audio": address}) if one.id == "u5" else one for one in utterances], faulty)
    job = job_for(faulty, tiny_checkpoint, tmp_path / "out", max_failures=3)
    starts = CountedStarts(job.output)
    with pytest.raises(StorageError) as caught:
        main(job)
    assert type(caught.value) is StorageError
    assert str(caught.value).startswith("the storage of http://127.0.0.1:9/5.wav does not answer")
    assert "\n" not in str(caught.value)
    assert starts.count() == 1


def test_a_model_that_is_not_a_number_ends_the_run_with_what_to_try_and_a_skip_is_in_the_record(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    broken = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        broken.model.model.decoder.layer_norm.weight[0] = torch.nan
    save_checkpoint(broken, tmp_path / "broken")
    job = job_for(manifest, tmp_path / "broken", tmp_path / "out", max_skipped_in_a_row=2, max_failures=3)
    with pytest.raises(NonFiniteTrainingError, match=r"3 steps in a row .* step 2: loss nan, .* lower learning_rate"):
        main(job)


class CountedStarts:
    """Counts how often workers were started: Ray keeps a folder of each."""

    def __init__(self, output: Path) -> None:
        self._pids: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.2):
            self._pids |= {process.pid for process in training_workers()}

    def count(self) -> int:
        """Worker groups of two."""
        self._stopped.set()
        self._thread.join()
        return len(self._pids) // 2
