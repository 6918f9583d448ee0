"""What does a corpus of a million utterances cost a run before its first step?

``python -m benchmarks.million_rows --output FILE``. No audio is read and no Ray is started. One process does what the
driver does: it reads the manifest, makes the examples, checks them, and pickles what Ray Train would put into the
object store. Another does what each training worker does: it opens that as Ray does, with the columns mapped and not
copied, computes the cursor of its run, and pickles what its decoding tasks read.

Bytes are divided by the utterances. Memory is a process's own, above what it took to do the same for a thousand
utterances: ``kept`` when all is done, without what allocators hold in reserve, and ``peak`` on the way. What is mapped
is shared by the processes of a machine: ``store_bytes`` once, and ``reader_bytes`` for each worker and its tasks.
Seconds are wall time, but ``cpu_s``.
"""

import ctypes
import gc
import multiprocessing
import pickle
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import Literal, TypeAlias

import numpy as np
import psutil
import pyarrow as pa
from pydantic import Field

from benchmarks.common import Row, describe_machine, print_table, write_result
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.mixing import read_speech
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.microbatches import find_cursor
from sottovoce.train.run import check_durations, summarize_data
from sottovoce.train.task import WorkerTask, model_utterances

Corpus: TypeAlias = Literal["clips", "chapters"]

_NUM_MICROBATCHES = 8
_PIECES = 15  # of a chapter
_EVERY = 200  # one utterance in so many validates
_NUM_OBJECTS = 100_000  # pickled as objects, for comparison
_NUM_WARM = 1_000


class MillionRows(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    num_utterances: int = Field(default=1_000_000, ge=10_000)
    corpora: tuple[Corpus, ...] = ("clips", "chapters")
    """Files of their own by 20 000 speakers, or the pieces of recordings, which have a text before them."""


def main(config: MillionRows) -> None:
    """Run the benchmark."""
    setup_logging()
    machine = describe_machine()
    rows = [measure(corpus, config.num_utterances) for corpus in config.corpora]
    rows.append(pickle_objects(config.num_utterances))
    question = (
        "Seconds and bytes an utterance that a corpus costs before the first step, in the driver and in each worker"
    )
    write_result(config.output, question, rows, machine=machine)
    print_table("A million rows", rows)


def measure(corpus: Corpus, num_utterances: int) -> Row:
    """Measure driver and worker, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, size in (("warm", _NUM_WARM), ("all", num_utterances)):
            (folder / part).mkdir()
            write_lines(folder / part / "manifest.jsonl", corpus, size)
        driver = _run(_drive, folder)
        worker = _run(_work, folder)
    costs = {"driver": driver, "worker": worker}
    totals = {
        who: {
            "seconds": sum(cost.seconds.values()),
            "cpu_s": cost.cpu_s,
            "parts_s": cost.seconds,
            "kept_bytes": cost.kept / num_utterances,
            "bar_bytes": 300.0,
            "peak_bytes": cost.peak / num_utterances,
        }
        for who, cost in costs.items()
    }
    sent = {name: size / num_utterances for name, size in {**driver.sizes, **worker.sizes}.items()}
    start_s = sum(sum(cost.seconds.values()) for cost in costs.values())
    return {"corpus": corpus, "num_utterances": num_utterances, "start_s": start_s, "bar_s": 10.0, **totals, **sent}


def pickle_objects(num_utterances: int) -> Row:
    """Pickle utterances as objects, as a run of release 0.1 did."""
    some = min(_NUM_OBJECTS, num_utterances)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "manifest.jsonl"
        write_lines(path, "clips", some)
        objects = tuple(Utterance.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines())
    started = perf_counter()
    data = pickle.dumps(objects, protocol=5)
    pickled_s = perf_counter() - started
    pickle.loads(data)
    seconds = perf_counter() - started
    return {"corpus": "as objects", "num_utterances": some, "there_and_back_s": seconds, "pickled_s": pickled_s}


def write_lines(path: Path, corpus: Corpus, num_utterances: int) -> None:
    """Write a manifest as ``prepare`` writes it, of texts and paths as long as those of read speech."""
    random = np.random.default_rng(0)
    durations_s = np.round(random.gamma(4.0, 1.4, num_utterances).clip(0.5, 10.0), 4).tolist()
    with path.open("w", encoding="utf-8") as file:
        for number, duration_s in enumerate(durations_s):
            chapter, piece = divmod(number, _PIECES)
            is_clip = corpus == "clips"
            one = Utterance(
                id=f"common_voice_en_{number:08d}" if is_clip else f"{chapter % 2500}-{chapter}-{piece}",
                audio=f"clips/common_voice_en_{number:08d}.mp3"
                if is_clip
                else f"audio/{chapter}/{chapter}-{piece}.flac",
                duration_s=duration_s,
                text=f"A sentence of some words, the {number}th, that somebody read aloud for the corpus.",
                speaker=f"{(number % 20_000) if is_clip else chapter % 2_500}",
                recording=None if is_clip else f"{chapter}",
                corpus="speech",
                split="train" if number % _EVERY else "validation",
            )
            file.write(one.model_dump_json() + "\n")


@dataclass
class _Cost:
    """What a process measured of itself."""

    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    kept: float = 0.0
    peak: float = 0.0

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = perf_counter()
        yield
        self.seconds[name] = perf_counter() - started


Work: TypeAlias = Callable[[Path, _Cost], tuple[object, ...]]


def _run(work: Work, folder: Path) -> _Cost:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure_self, args=(work, folder, theirs))
    process.start()
    cost = ours.recv()
    process.join()
    assert isinstance(cost, _Cost)
    return cost


def _measure_self(work: Work, folder: Path, connection: Connection) -> None:
    """Do the work of a process and send what it cost."""
    work(folder / "warm", _Cost())
    gc.collect()
    cost = _Cost()
    before, peak_before, cpu_before = _own_bytes(), _peak_bytes(), process_time()
    kept = work(folder / "all", cost)
    cost.cpu_s = process_time() - cpu_before
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)  # glibc's
    cost.kept, cost.peak = _own_bytes() - before, _peak_bytes() - peak_before
    assert kept, "what is measured must be alive"
    connection.send(cost)


def _own_bytes() -> float:
    """Return this process's memory without what is mapped from files, which others share."""
    memory = psutil.Process().memory_info()
    return float(memory.rss - memory.shared)


def _peak_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _drive(folder: Path, cost: _Cost) -> tuple[object, ...]:
    """Do what the driver does before Ray Train starts; return what it keeps during the run."""
    path = folder / "manifest.jsonl"
    config = TrainingConfig(base="micro")
    with cost.timed("read"):
        speech = read_speech((path,))
    with cost.timed("examples"):
        stream = build_stream(speech, DatasetConfig(manifest=(path,)))
        validation = speech.split("validation")
    with cost.timed("check"):
        check_durations(config, stream, validation)
        summarize_data(stream, validation, ())
        model_utterances(config, stream)
    with cost.timed("send"):
        task = WorkerTask(
            training={}, device="cpu", precision="fp32", stream=stream, validation=validation, output=folder, board=""
        )
        buffers: list[pickle.PickleBuffer] = []
        inline = pickle.dumps(task, protocol=5, buffer_callback=buffers.append)
        sizes = [buffer.raw().nbytes for buffer in buffers]
        with (folder / "store").open("wb") as file:
            file.writelines(buffer.raw() for buffer in buffers)
    (folder / "inline").write_bytes(pickle.dumps((inline, sizes)))
    cost.sizes = {"inline_bytes": float(len(inline)), "store_bytes": float(sum(sizes))}
    del buffers
    return speech, task


def _work(folder: Path, cost: _Cost) -> tuple[object, ...]:
    """Do what a worker does before its first batch; return what it keeps during the run."""
    with cost.timed("receive"):
        inline, sizes = pickle.loads((folder / "inline").read_bytes())
        store = np.memmap(folder / "store", np.uint8, "r")
        edges = np.cumsum([0, *sizes])
        task: WorkerTask = pickle.loads(inline, buffers=[store[first:stop] for first, stop in pairwise(edges)])
    with cost.timed("cursor"):
        cursor = find_cursor(task.stream, num_microbatches=_NUM_MICROBATCHES, seed=0, step=0)
        model_utterances(TrainingConfig(), task.stream)
    with cost.timed("reader"):
        reader = task.stream.build_reader(num_microbatches=_NUM_MICROBATCHES, seed=0)  # type: ignore[attr-defined]
        buffers: list[pickle.PickleBuffer] = []
        pickle.dumps(reader, protocol=5, buffer_callback=buffers.append)
        cost.sizes["reader_bytes"] = float(sum(buffer.raw().nbytes for buffer in buffers))
    with cost.timed("first_batch"):
        batch = reader.plan.batch(0, microbatch=0)
    return task, cursor, reader, batch


if __name__ == "__main__":
    main(load_config(MillionRows))
