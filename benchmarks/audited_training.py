"""A training run that writes down by id what each worker reads and trains on, and one that is killed as it goes.

``python -m benchmarks.audited_training --config FILE`` is a run's driver, in a process of its own so that it can be
killed. What the workers write down shows afterwards whether every utterance was trained on once in every epoch.
"""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import psutil
import soundfile
from pydantic import Field

from benchmarks.audited_stream import AuditedStream
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.config import Config, load_config, setup_logging, write_config
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.manifest import write_manifest
from sottovoce.data.mixing import read_speech
from sottovoce.publish.outcome import save_result
from sottovoce.schema import SAMPLING_RATE, Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.run import build_run, claim_output, run_training

ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.005  # a step of the smallest models takes 30 ms
_PATIENCE_S = 300.0  # for the next step to come, workers' start included


def write_tones(folder: Path, *, num_train: int, num_validation: int) -> Path:
    """Write tones of 0.5 to 2 s whose pitch is their text, and give their manifest."""
    utterances = []
    for number in range(num_train + num_validation):
        num_samples = round(SAMPLING_RATE * (0.5 + 1.5 * number / (num_train + num_validation)))
        tone = 0.3 * np.sin(np.arange(num_samples) * (0.05 + 0.02 * (number % 3)))
        soundfile.write(folder / f"{number}.wav", tone, SAMPLING_RATE)
        utterances.append(
            Utterance(
                id=f"u{number}",
                audio=str(folder / f"{number}.wav"),
                duration_s=num_samples / SAMPLING_RATE,
                speaker=f"s{number % 2}",
                text=("low", "middle", "high")[number % 3],
                split="train" if number < num_train else "validation",
            )
        )
    write_manifest(utterances, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def digest_weights(output: Path) -> str:
    """Return the SHA-256 of the weights a run ended with."""
    with build_store(None, output=output).latest() as last:
        assert last is not None, f"there is no checkpoint in {output}"
        return hashlib.sha256((last.folder / MODEL_FOLDER / "model.safetensors").read_bytes()).hexdigest()


class AuditedTraining(Config):
    """As ``jobs.train_whisper``, and where to write down what is trained on."""

    data: DatasetConfig
    training: TrainingConfig
    output: Path
    audit: Path
    """Folder of the notes."""
    pause_s: float = Field(default=0.0, ge=0.0)
    """Seconds each batch is held back, for a run that must not end before something happens to it."""


def main(job: AuditedTraining) -> None:
    """Run it, or go on with it."""
    setup_logging()
    train_audited(job)


def train_audited(job: AuditedTraining) -> None:
    """Run it in this process; needs a Ray, or starts one."""
    job.audit.mkdir(parents=True, exist_ok=True)
    speech = read_speech(job.data.manifest)
    stream = AuditedStream(build_stream(speech, job.data), job.audit.resolve(), job.pause_s)
    run = build_run(job.training, train=stream, validation=speech.split("validation"), output=job.output)
    claim_output(job, job.output)
    run_training(run)
    save_result(run, prepare_rejects=speech.rejects)


@dataclass(frozen=True)
class Note:
    """One batch a worker read, or trained on."""

    what: str
    time_ns: int
    step: int
    microbatch: int
    ids: tuple[str, ...]


def read_notes(path: Path) -> list[Note]:
    """Read what one worker wrote; a line that was cut short by its death is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [
        Note(**{**values, "ids": tuple(values["ids"])})
        for line in lines
        if line.endswith("\n")
        for values in [json.loads(line)]
    ]


@dataclass(frozen=True)
class Audit:
    """What the notes of a run say."""

    num_workers: int
    """Workers that were started and trained."""
    num_steps_replayed: int
    """Steps taken again because a death came before their checkpoint."""
    num_disagreeing: int
    """Batches that held other utterances when they were read again."""
    num_epochs_exact: int
    """Epochs in which each utterance was trained on exactly once."""
    is_in_order: bool
    """The steps that count were taken one after the other."""


def audit_run(folder: Path, *, everyone: Sequence[str], steps_per_epoch: int) -> Audit:
    """Go through a run's notes; where a step was taken several times, the last time counts.

    Args:
        folder: of the notes.
        everyone: ids of the training split.
        steps_per_epoch: of the run.
    """
    by_worker = [read_notes(path) for path in sorted(folder.glob("*.jsonl"))]
    notes = sorted((note for worker in by_worker for note in worker), key=lambda note: note.time_ns)
    batches: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for note in notes:
        batches.setdefault((note.step, note.microbatch), set()).add(note.ids)
    trained = [note for note in notes if note.what == "trained"]
    last = {(note.step, note.microbatch): note for note in trained}
    times = Counter((note.step, note.microbatch) for note in trained)
    most = {step: max(times[key] for key in times if key[0] == step) for step, _ in times}
    counts: dict[int, Counter[str]] = {}
    for note in last.values():
        counts.setdefault(note.step // steps_per_epoch, Counter()).update(note.ids)
    ends = [max(note.time_ns for note in last.values() if note.step == step) for step in sorted(most)]
    return Audit(
        num_workers=sum(any(note.what == "trained" for note in worker) for worker in by_worker),
        num_steps_replayed=sum(most.values()) - len(most),
        num_disagreeing=sum(len(found) > 1 for found in batches.values()),
        num_epochs_exact=sum(count == Counter(everyone) for count in counts.values()),
        is_in_order=sorted(most) == list(range(len(most))) and ends == sorted(ends),
    )


Victim: TypeAlias = Literal["worker", "driver", "stopped worker"]
"""The last receives SIGSTOP: it lives and does nothing, until the heartbeat has it killed."""


@dataclass(frozen=True)
class Kill:
    """Who dies, and after how many steps."""

    victim: Victim
    step: int


def draw_kills(victims: Sequence[Victim], *, num_steps: int, seed: int) -> list[Kill]:
    """Put deaths at random steps, not within the last few: a run that is over cannot be killed."""
    generator = random.Random(seed)
    steps = sorted(generator.sample(range(1, num_steps - 4), len(victims)))
    return [
        Kill(victim, step) for victim, step in zip(generator.sample(list(victims), len(victims)), steps, strict=True)
    ]


def train_killed(
    job: AuditedTraining,
    kills: Sequence[Kill],
    *,
    environment: Mapping[str, str],
    log: Path,
    between_drivers: Callable[[], None] = lambda: None,
) -> None:
    """Run it in processes of their own, and kill as is planned; what was killed is started again or goes on by itself.

    Args:
        job: the run.
        kills: in the order of their steps.
        environment: with the address of the Ray this process has started.
        log: file that receives what the drivers say.
        between_drivers: called when a driver was killed and the next has not been started.
    """
    driver = start_driver(job, environment, log)
    try:
        for number, kill in enumerate(kills):
            known = set(job.audit.glob("*.jsonl")) if number else set()
            wait_for_step(job.audit, kill.step, known=known, driver=driver, log=log)
            if kill.victim != "driver":
                _signal_one_worker(signal.SIGKILL if kill.victim == "worker" else signal.SIGSTOP, seed=number)
                continue
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            between_drivers()
            driver = start_driver(job, environment, log)
        assert driver.wait(timeout=_PATIENCE_S) == 0, log.read_text(encoding="utf-8")[-4_000:]
    finally:
        driver.kill()
        driver.wait()


def start_driver(job: AuditedTraining, environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Run it in a process of its own."""
    job.audit.mkdir(parents=True, exist_ok=True)
    recipe = job.audit / "job.yaml"
    write_config(job, recipe)
    command = [sys.executable, "-m", "benchmarks.audited_training", "--config", str(recipe)]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=file, stderr=file)


def wait_for_step(folder: Path, step: int, *, known: set[Path], driver: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a worker whose file is not among those known has taken a step."""
    deadline = time.monotonic() + _PATIENCE_S
    while _last_step(set(folder.glob("*.jsonl")) - known) < step:
        said = "" if driver.poll() is None else log.read_text(encoding="utf-8")[-4_000:]
        assert driver.poll() is None, f"the run was over before step {step} could be met: {said}"
        assert time.monotonic() < deadline, f"step {step} never came"
        time.sleep(_POLL_S)


def _last_step(paths: set[Path]) -> int:
    return max((note.step for path in paths for note in read_notes(path) if note.what == "trained"), default=-1)


def _signal_one_worker(number: signal.Signals, *, seed: int) -> None:
    """Send a signal to a training worker among this process's own descendants."""
    workers = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            if process.status() != psutil.STATUS_ZOMBIE and any("RayTrainWorker" in part for part in process.cmdline()):
                workers.append(process)
    assert workers, "no training worker is running"
    random.Random(seed).choice(sorted(workers, key=lambda process: process.pid)).send_signal(number)


if __name__ == "__main__":
    main(load_config(AuditedTraining))
