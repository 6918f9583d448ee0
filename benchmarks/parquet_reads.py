"""How many bytes does an epoch of shuffled training read, of a corpus that is stored in Parquet?

``python -m benchmarks.parquet_reads --output FILE``. FLAC recordings of 2 to 15 s are written as the Hub stores them,
100 to a row group. Their steps are read in the order of training, one utterance after the other, by what decoding tasks
run, in this process and without Ray: once from the rows of the Parquet files, as older releases prepared them, and once
from the tar files that ``prepare`` stores now. Bytes are those that the process asked the system for; those of an epoch
are also given as multiples of the recordings'. From rows only some steps are read, which stand for the others.
"""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from pydantic import Field
from rich.progress import track

from benchmarks.clips import draw_voice
from benchmarks.common import Row, describe_machine, print_table, write_result
from sottovoce.audio import parquet_rows
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig, SpeechStream, build_stream
from sottovoce.data.mixing import Speech
from sottovoce.data.recording_store import group_rows, name_targets, refer, store_rows
from sottovoce.schema import SAMPLING_RATE, Utterance, Waveform

_ROWS_PER_GROUP = 100
_BAR = 1.5


class ParquetReads(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    num_utterances: int = Field(default=1_200, ge=100)
    num_files: int = Field(default=3, ge=1)
    num_steps_of_rows: int = Field(default=10, ge=1)
    """Steps that are read from the rows."""
    seed: int = 0


def main(config: ParquetReads) -> None:
    """Run the benchmark."""
    setup_logging()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        utterances, corpus_bytes = write_corpus(Path(name) / "corpus", config)
        rows = [read_epoch("rows of Parquet", utterances, corpus_bytes, config, num_steps=config.num_steps_of_rows)]
        stored, cost = store(utterances, Path(name) / "recordings", corpus_bytes)
        rows += [cost, read_epoch("stored recordings", stored, corpus_bytes, config, num_steps=None)]
    question = "Bytes that an epoch of shuffled training reads, of a corpus in Parquet"
    write_result(config.output, question, rows, machine=machine)
    print_table("Bytes read of a corpus in Parquet", rows)


def write_corpus(folder: Path, config: ParquetReads) -> tuple[list[Utterance], int]:
    """Write the Parquet files; return what prepare would make of them without storing, and the recordings' bytes."""
    folder.mkdir()
    random = np.random.default_rng(config.seed)
    voices = [draw_voice(random, 15.0) for _ in range(20)]
    utterances: list[Utterance] = []
    corpus_bytes = 0
    for file_number, numbers in enumerate(np.array_split(np.arange(config.num_utterances), config.num_files)):
        path = folder / f"train-{file_number:05d}-of-{config.num_files:05d}.parquet"
        recordings: list[bytes] = []
        for row, number in enumerate(numbers.tolist()):
            duration_s = round(float(random.uniform(2.0, 15.0)), 4)
            recordings.append(encode_flac(voices[number % len(voices)], duration_s))
            audio = f"{path}#row={row}"
            utterances.append(Utterance(id=f"u{number}", audio=audio, duration_s=duration_s, text="a text"))
        corpus_bytes += sum(map(len, recordings))
        audio_column = pa.array([{"bytes": data, "path": f"{number}.flac"} for number, data in enumerate(recordings)])
        pq.write_table(pa.table({"audio": audio_column}), path, row_group_size=_ROWS_PER_GROUP)
    return utterances, corpus_bytes


def encode_flac(voice: Waveform, duration_s: float) -> bytes:
    """Encode the first seconds of a voice."""
    file = io.BytesIO()
    soundfile.write(file, voice[: round(duration_s * SAMPLING_RATE)], SAMPLING_RATE, format="FLAC")
    return file.getvalue()


def read_epoch(
    what: str, utterances: Sequence[Utterance], corpus_bytes: int, config: ParquetReads, *, num_steps: int | None
) -> Row:
    """Read some steps of an epoch, or all, and count the bytes."""
    stream = stream_of(utterances)
    reader = stream.build_reader(num_microbatches=1, seed=config.seed)
    steps_per_epoch = stream.steps_per_epoch(1)
    steps = range(min(num_steps or steps_per_epoch, steps_per_epoch))
    parquet_rows._kept.clear()  # what writing has left
    started, before = perf_counter(), count_read()
    num_read = 0
    for step in track(steps, description=f"reading {what}"):
        values = reader.read(step, microbatch=0)
        assert not values["rejects"][0].as_py(), "every recording is read"
        num_read += len(values["num_samples"][0])
    num_bytes, seconds = count_read() - before, perf_counter() - started
    epoch_bytes = num_bytes * len(utterances) / num_read
    return {
        "what": what,
        "num_utterances": num_read,
        "seconds": seconds,
        "bytes_per_utterance": num_bytes / num_read,
        "epoch_bytes": epoch_bytes,
        "of_corpus": epoch_bytes / corpus_bytes,
        "bar": _BAR,
    }


def store(utterances: Sequence[Utterance], folder: Path, corpus_bytes: int) -> tuple[list[Utterance], Row]:
    """Store the recordings as ``store_recordings`` does, and count the bytes that this reads."""
    started, before = perf_counter(), count_read()
    rows = group_rows(utterances)
    targets = name_targets(rows, folder)
    spans = {location: store_rows(location, rows[location], targets[location]) for location in rows}
    num_bytes, seconds = count_read() - before, perf_counter() - started
    cost = {
        "what": "storing, once",
        "num_utterances": len(utterances),
        "seconds": seconds,
        "bytes_per_utterance": num_bytes / len(utterances),
        "of_corpus": num_bytes / corpus_bytes,
        "written_of_corpus": sum(path.stat().st_size for path in targets.values()) / corpus_bytes,
    }
    return [refer(one, spans, targets) for one in utterances], cost


def stream_of(utterances: Sequence[Utterance]) -> SpeechStream:
    """Build the stream of a run with the default settings."""
    return build_stream(Speech(manifests=(utterances,), rejects=()), DatasetConfig(manifest=(Path("manifest.jsonl"),)))


def count_read() -> int:
    """Return the bytes that this process has asked the system for, whether a disk or the page cache gave them."""
    return int(psutil.Process().io_counters().read_chars)


if __name__ == "__main__":
    main(load_config(ParquetReads))
