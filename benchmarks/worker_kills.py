"""Does preparing a corpus lose, double or change a row when Ray Data's workers are killed while they work?

``python -m benchmarks.worker_kills --num-rows 50000 --num-kills 200 --output FILE`` prepares a corpus twice, once left
alone and once with its workers killed by SIGKILL, and compares every byte of what was written.
"""

import hashlib
import json
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import ray
import soundfile
from pydantic import Field

from benchmarks.common import Row, print_table, write_result
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.manifest import read_manifest, read_rejects
from sottovoce.data.prepare import PrepareConfig, prepare_corpus

OUTPUTS = ("manifest.jsonl", "rejects.jsonl", "warnings.jsonl")
_NUM_RECORDINGS = 100
_RECORDING_S = 20.0
_RECORDING_HZ = 44_100  # resampling makes a row cost milliseconds: there is work left between two deaths
_SHORTEST_S, _LONGEST_S = 4.0, 14.0
_ROWS_PER_REJECT = 200  # half a percent of the rows name a file that is not there
_POLL_S = 0.02
_DEATH_TIMEOUT_S = 60.0


class WorkerKills(Config):
    """How many rows, and how many workers die."""

    num_rows: int = Field(default=50_000, ge=1)
    """Rows of the corpus; each is a piece of one of 100 recordings."""
    num_kills: int = Field(default=200, ge=1)
    """Workers killed while a task of theirs is running."""
    num_cpus: int = Field(default=2, ge=1)
    """CPUs of the Ray that is started."""
    output: Path
    """JSON file that receives the result."""


class WorkerKiller(threading.Thread):
    """Kill Ray workers of this process that are running a map task, one after the other."""

    def __init__(self, *, num_kills: int, pause_s: float, num_running: int = 1, seed: int = 0) -> None:
        """Prepare; ``start`` begins.

        Args:
            num_kills: it ends after this many.
            pause_s: mean seconds between two kills, and before the first.
            num_running: it waits until so many workers run map tasks, so that a death meets work and not a start.
            seed: of the pauses and of whom it hits.
        """
        super().__init__(name="worker killer", daemon=True)
        self._num_kills = num_kills
        self._pause_s = pause_s
        self._num_running = num_running
        self._random = random.Random(seed)
        self._stopped = threading.Event()
        self.killed: list[int] = []
        """Process ids, in the order of their deaths."""

    def run(self) -> None:
        """Kill until there were enough, or the block around it is left."""
        while len(self.killed) < self._num_kills and not self._stopped.wait(self._random.uniform(0, 2 * self._pause_s)):
            victim = self._find_victim()
            with suppress(psutil.NoSuchProcess):  # it ended by itself just then
                if victim is not None:
                    victim.send_signal(signal.SIGKILL)
                    self.killed.append(victim.pid)
                    victim.wait(timeout=_DEATH_TIMEOUT_S)

    def stop(self) -> None:
        """Kill no more."""
        self._stopped.set()
        self.join()

    def _find_victim(self) -> psutil.Process | None:
        """Wait for workers that are running map tasks, and choose one; None when stopped before."""
        while not self._stopped.wait(_POLL_S):
            workers = [process for process in psutil.Process().children(recursive=True) if _is_mapping(process)]
            if len(workers) >= self._num_running:
                return self._random.choice(workers)
        return None


@contextmanager
def killed_workers(*, num_kills: int, pause_s: float, num_running: int = 1) -> Iterator[WorkerKiller]:
    """Kill workers until the block is left."""
    killer = WorkerKiller(num_kills=num_kills, pause_s=pause_s, num_running=num_running)
    killer.start()
    try:
        yield killer
    finally:
        killer.stop()


def _is_mapping(process: psutil.Process) -> bool:
    """Return whether a process is a Ray worker in a map task; Ray writes the name of the task over the command."""
    try:
        command = process.cmdline()
    except psutil.Error:  # it ended meanwhile, or is a zombie
        return False
    return bool(command) and command[0].startswith("ray::") and "Map(" in command[0]


def make_corpus(folder: Path, *, num_rows: int, seed: int = 0) -> Path:
    """Write recordings of noise and a JSONL corpus whose rows are pieces of them; every 200th names a missing file."""
    generator = np.random.default_rng(seed)
    for number in range(_NUM_RECORDINGS):
        noise = 0.1 * generator.standard_normal(int(_RECORDING_S * _RECORDING_HZ))
        soundfile.write(folder / f"{number}.wav", noise, _RECORDING_HZ)
    corpus = folder / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            duration_s = round(generator.uniform(_SHORTEST_S, _LONGEST_S), 3)
            is_missing = number % _ROWS_PER_REJECT == 0
            row = {
                "id": f"row-{number:07d}",
                "audio": "missing.wav" if is_missing else f"{number % _NUM_RECORDINGS}.wav",
                "start_s": round(generator.uniform(0.0, _RECORDING_S - duration_s), 3),
                "duration_s": duration_s,
                "text": f"Piece number {number}.",
                "speaker": f"speaker {number % 97}",
            }
            file.write(json.dumps(row) + "\n")
    return corpus


def digests(output: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that preparing writes."""
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in OUTPUTS}


def _timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def compare(folder: Path, *, num_rows: int, num_kills: int) -> Row:
    """Prepare the same corpus undisturbed and disturbed; needs a running Ray."""
    corpus = make_corpus(folder, num_rows=num_rows)
    calm, killed = folder / "calm", folder / "killed"
    calm_s = _timed(lambda: prepare_corpus(corpus, calm, PrepareConfig()))
    # Half the work's own time is left between the deaths; both workers are at work when the next one dies.
    with killed_workers(num_kills=num_kills, pause_s=0.5 * calm_s / num_kills, num_running=2) as killer:
        killed_s = _timed(lambda: prepare_corpus(corpus, killed, PrepareConfig()))
    ids = [row.id for row in read_manifest(killed / "manifest.jsonl")]
    rejected = [row.id for row in read_rejects(killed / "rejects.jsonl")]
    return {
        "rows": num_rows,
        "kills": len(killer.killed),
        "seconds": round(killed_s, 1),
        "seconds_undisturbed": round(calm_s, 1),
        "rows_per_s_undisturbed": round(num_rows / calm_s, 1),
        "utterances": len(ids),
        "rejects": len(rejected),
        "ids_unique": len(set(ids + rejected)) == num_rows == len(ids) + len(rejected),
        "identical": digests(calm) == digests(killed),
    }


def main(settings: WorkerKills) -> None:
    """Run the comparison and write its result."""
    setup_logging()
    ray.init(address="local", num_cpus=settings.num_cpus, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        results: Sequence[Row] = [compare(Path(folder), num_rows=settings.num_rows, num_kills=settings.num_kills)]
    ray.shutdown()
    write_result(settings.output, "Does preparing a corpus survive the death of its workers, byte by byte?", results)
    print_table("Workers killed while a corpus is prepared", results)


if __name__ == "__main__":
    main(load_config(WorkerKills))
