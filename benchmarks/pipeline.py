"""How fast does speech come through Ray Data, beside plain multiprocessing and ``datasets.map``?

``python -m benchmarks.pipeline --output FILE``. Everybody reads the same FLAC files of 2 to 15 s on two CPUs and gives
Whisper's input features and label ids, batch by batch:

- ``ray_data``: our stream. Two Ray tasks decode to int16 PCM; the consumer makes log-mel and labels, at the batch's own
  context. Ray runs already; planning, building the Dataset and starting its executor are timed.
- ``ray_data_padded``: the same with every spectrogram padded to 30 s, as the third peer does.
- ``multiprocessing``: a ``Pool`` of two with the same functions on the same batches, as many to a task; the consumer is
  the same code. The pool runs already.
- ``datasets_map``: ``Dataset.map(num_proc=2)``, decoding with soundfile, then the WhisperProcessor, whose features are
  padded to 30 s; the table is written to disk, as it always is. Its processes start anew at every call, as they always
  do, within the time measured.

Beside the times: the peak memory of a Ray worker that decodes, of its own (USS), and the bytes an utterance takes in
the object store, beside the same rows as float32 waveforms and as float32 log-mel of 80 bins.
"""

import logging
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import ray
import soundfile
import torch
from pydantic import Field
from transformers import WhisperProcessor, WhisperTokenizerFast

from benchmarks.common import Row, Timing, print_table, time_interleaved, write_result
from sottovoce.audio.features import log_mel
from sottovoce.audio.waveform import from_pcm
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.batch_reader import BatchReader
from sottovoce.data.dataset import DatasetConfig, SpeechStream, build_stream
from sottovoce.data.mixing import Speech
from sottovoce.model.labels import encode_labels
from sottovoce.model.source import resolve_folder
from sottovoce.schema import FRAMES_PER_SECOND, HOP_LENGTH, MAX_CONTEXT_S, SAMPLING_RATE, LogMel, Pcm, Utterance

_NUM_MEL_BINS = 80
_TEXT = "the quick brown fox jumps over the lazy dog and then it goes home to sleep"
_PADDED_FRAMES = round(MAX_CONTEXT_S * FRAMES_PER_SECOND)

_reader: BatchReader | None = None  # of each process of the pool


class PipelineBenchmark(Config):
    """What is measured."""

    output: Path
    """JSON file."""
    num_utterances: int = Field(default=2_000, ge=1)
    repetitions: int = Field(default=5, ge=1)
    num_epochs: int = Field(default=3, ge=1)
    """Of ray_data and multiprocessing in one repetition: a stream is started once for a whole run."""
    steps_per_task: int = Field(default=16, ge=1)
    """Batches of 16 a task decodes, of Ray as of the pool: a second of work."""
    seed: int = 0


def main(config: PipelineBenchmark) -> None:
    """Run the benchmark."""
    setup_logging()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    with tempfile.TemporaryDirectory() as name, start_ray():
        stream = build_clips_stream(Path(name), config)
        reader = stream.build_reader(num_microbatches=1, seed=config.seed)
        consumer = Consumer(config.num_epochs)
        with multiprocessing.get_context("spawn").Pool(2, initializer=keep_reader, initargs=(reader,)) as pool:
            watch = MemoryWatch()
            timings = time_interleaved(
                {
                    "ray_data": lambda: consumer.read_stream(stream, reader),
                    "ray_data_padded": lambda: consumer.read_stream(stream, reader, num_frames=_PADDED_FRAMES),
                    "multiprocessing": lambda: consumer.read_pool(pool, stream, reader),
                    "datasets_map": lambda: map_dataset(stream.utterances, Path(name)),
                },
                repetitions=config.repetitions,
            )
            peak_bytes = watch.stop()
        num_rows = dict.fromkeys(timings, config.num_epochs * config.num_utterances)
        num_rows["datasets_map"] = config.num_utterances
        rows = [*compare(timings, num_rows), measure_bytes(stream, config.seed)]
        rows.append(
            {
                "what": "worker_memory",
                "peak_uss_gb": peak_bytes / 1e9,
                "bar_gb": 0.8,
                "utterances_per_task": 16 * config.steps_per_task,
            }
        )
    write_result(config.output, "Rows per second from FLAC to input features and labels, on two CPUs", rows)
    print_table("Pipeline", rows)


@contextmanager
def start_ray() -> Iterator[None]:
    """Start a Ray of two CPUs."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    yield
    ray.shutdown()


def build_clips_stream(folder: Path, config: PipelineBenchmark) -> SpeechStream:
    """Write FLAC files of 2 to 15 s of a wandering voice-like tone, and stream them."""
    random = np.random.default_rng(config.seed)
    voices = [_voice(random, 15.0) for _ in range(20)]
    utterances = []
    for i in range(config.num_utterances):
        num_samples = int(random.uniform(2.0, 15.0) * SAMPLING_RATE)
        path = folder / f"{i:05d}.flac"
        soundfile.write(path, voices[i % len(voices)][:num_samples], SAMPLING_RATE)
        duration_s = num_samples / SAMPLING_RATE
        utterances.append(Utterance(id=path.stem, audio=str(path), duration_s=duration_s, text=_TEXT))
    data = DatasetConfig(
        manifest=(folder / "manifest.jsonl",),
        steps_per_task=config.steps_per_task,
        tasks_per_worker=2,
        cpus_per_task=1.0,
    )
    return build_stream(Speech(manifests=(tuple(utterances),), rejects=()), data)


def _voice(random: np.random.Generator, duration_s: float) -> np.ndarray:
    num_samples = int(duration_s * SAMPLING_RATE)
    pitch_hz = 120.0 + 60.0 * np.cumsum(random.standard_normal(num_samples)) / np.sqrt(num_samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLING_RATE
    voice = sum(random.uniform(0.2, 1.0) * np.sin(k * phase) / k for k in range(1, 20))
    loudness = np.repeat(random.uniform(0.0, 1.0, num_samples // 1_600 + 1), 1_600)[:num_samples]
    noise = 0.01 * random.standard_normal(num_samples)
    return np.asarray((0.2 * loudness * voice + noise).clip(-1.0, 1.0), np.float32)


class Consumer:
    """Make features and labels of what comes, in this process."""

    def __init__(self, num_epochs: int) -> None:
        self._num_epochs = num_epochs
        self._tokenizer = WhisperTokenizerFast.from_pretrained(resolve_folder("micro"))

    def read_stream(self, stream: SpeechStream, reader: BatchReader, *, num_frames: int | None = None) -> None:
        """Read some epochs from Ray Data."""
        num_read = 0
        last, seed = self._num_epochs * reader.plan.steps_per_epoch, reader.plan.seed
        for batch in stream.batches(microbatches=(0,), num_microbatches=1, seed=seed, first_step=0, last_step=last):
            texts = [example.utterances[0].text for example in batch.examples]
            num_read += self._make(batch.recordings, texts, num_frames)
        assert num_read == self._num_epochs * len(stream.examples)

    def read_pool(self, pool: Pool, stream: SpeechStream, reader: BatchReader) -> None:
        """Read some epochs from the processes of a pool."""
        num_read, size = 0, stream.steps_per_task
        steps = range(self._num_epochs * reader.plan.steps_per_epoch)
        tasks = [list(steps[first : first + size]) for first in steps[::size]]
        for batches in pool.imap(read_batches, tasks):
            for places, recordings in batches:
                texts = [stream.examples[place].utterances[0].text for place in places]
                num_read += self._make([(pcm,) for pcm in recordings], texts, None)
        assert num_read == self._num_epochs * len(stream.examples)

    def _make(self, recordings: Sequence[tuple[Pcm, ...]], texts: Sequence[str], num_frames: int | None) -> int:
        """Return the number of rows made."""
        waveforms = [from_pcm(pcm) for (pcm,) in recordings]
        frames = num_frames or -(-max(map(len, waveforms)) // HOP_LENGTH)
        features: list[LogMel] = [log_mel(one, num_mel_bins=_NUM_MEL_BINS, num_frames=frames) for one in waveforms]
        labels = [encode_labels(self._tokenizer, text, language="en") for text in texts]
        return len(list(zip(np.stack(features), labels, strict=True)))


def keep_reader(reader: BatchReader) -> None:
    """Called in each process of the pool."""
    global _reader
    _reader = reader


def read_batches(steps: Sequence[int]) -> list[tuple[list[int], list[Pcm]]]:
    """Decode the utterances of some steps, in a process of the pool."""
    assert _reader is not None
    batches = []
    for step in steps:
        places = _reader.plan.batch(step, microbatch=0).tolist()
        outcomes = [_reader.read_recording(place, epoch=0, stretch=1.0) for place in places]
        batches.append((places, [pcm for pcm in outcomes if isinstance(pcm, np.ndarray)]))
    return batches


def map_dataset(utterances: Sequence[Utterance], folder: Path) -> None:
    """Make features and labels with ``datasets`` and the WhisperProcessor, as its guides show."""
    import datasets  # only this peer needs it

    datasets.disable_progress_bars()
    torch.set_num_threads(1)  # two processes on two CPUs: they inherit it
    processor = WhisperProcessor.from_pretrained(resolve_folder("micro"))
    table = datasets.Dataset.from_dict({"audio": [one.audio for one in utterances], "text": [_TEXT] * len(utterances)})
    cache = folder / "map.arrow"
    made = table.map(
        partial(process_row, processor=processor),
        num_proc=2,
        remove_columns=table.column_names,
        cache_file_name=str(cache),
        load_from_cache_file=False,
    )
    assert len(made) == len(utterances)
    del made
    for path in folder.glob("map*.arrow"):
        path.unlink()


def process_row(row: Mapping[str, str], *, processor: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers gives its processor's parts no types
    """Return the features and labels of one row."""
    waveform, sampling_rate = soundfile.read(row["audio"], dtype="float32")
    features = processor.feature_extractor(waveform, sampling_rate=sampling_rate).input_features[0]
    return {"input_features": features, "labels": processor.tokenizer(row["text"]).input_ids}


class MemoryWatch:
    """Follow the memory of Ray's decoding workers, in a thread."""

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return the largest USS of any worker so far, in bytes."""
        self._stopped.set()
        self._thread.join()
        return self._peak_bytes

    def _run(self) -> None:
        """Poll once a second: reading a process's USS costs milliseconds, and peers are timed meanwhile."""
        while not self._stopped.wait(1.0):
            for process in psutil.Process().children(recursive=True):
                self._peak_bytes = max(self._peak_bytes, _uss_if_decoding(process))


def _uss_if_decoding(process: psutil.Process) -> int:
    try:
        is_decoding = any("read_steps" in part for part in process.cmdline())
        return int(process.memory_full_info().uss) if is_decoding else 0
    except psutil.Error:  # it ended meanwhile
        return 0


def compare(timings: Mapping[str, Timing], num_rows: Mapping[str, int]) -> list[Row]:
    """Return a line for each system; ``ours_over_it`` is how many times as many rows a second ours gives."""
    speeds = {name: num_rows[name] / timing.median_s for name, timing in timings.items()}
    return [
        {
            "what": name,
            "rows_per_s": speeds[name],
            "num_rows": num_rows[name],
            "median_s": timing.median_s,
            "iqr_s": timing.iqr_s,
            "repetitions": timing.repetitions,
            "ours_over_it": speeds["ray_data"] / speeds[name],
        }
        for name, timing in timings.items()
    ]


def measure_bytes(stream: SpeechStream, seed: int) -> Row:
    """Count what rows take in the object store as we send them, as float32 waveforms, and as float32 log-mel."""
    reader = stream.build_reader(num_microbatches=1, seed=seed)
    last = stream.steps_per_epoch(1)
    dataset = stream.build_dataset(ray.put(reader), microbatches=(0,), first=0, last=last)
    sizes = {
        "int16": dataset.materialize().size_bytes(),
        "float32_waveform": dataset.map_batches(to_float32, batch_size=1, batch_format="pyarrow")
        .materialize()
        .size_bytes(),
        "float32_log_mel": dataset.map_batches(to_log_mel, batch_size=1, batch_format="pyarrow")
        .materialize()
        .size_bytes(),
    }
    each = {name: size / len(stream.utterances) for name, size in sizes.items()}
    return {
        "what": "object_store",
        "bytes_per_utterance": each,
        "of_float32_waveform": each["int16"] / each["float32_waveform"],
        "of_float32_log_mel_30s": each["int16"] / each["float32_log_mel"],
    }


def to_float32(row: pa.Table) -> pa.Table:
    """Hold a row's samples as float32."""
    pcm = np.frombuffer(row["pcm"][0].as_buffer(), np.int16)
    return row.set_column(1, "pcm", [pa.array([from_pcm(pcm).tobytes()], pa.large_binary())])


def to_log_mel(row: pa.Table) -> pa.Table:
    """Hold a row's recordings as log-mel padded to 30 s."""
    pcm = np.frombuffer(row["pcm"][0].as_buffer(), np.int16)
    parts = np.split(pcm, np.cumsum(row["num_samples"][0].as_py())[:-1])
    spectrograms = [log_mel(from_pcm(part), num_mel_bins=_NUM_MEL_BINS, num_frames=_PADDED_FRAMES) for part in parts]
    return row.set_column(1, "pcm", [pa.array([np.stack(spectrograms).tobytes()], pa.large_binary())])


if __name__ == "__main__":
    main(load_config(PipelineBenchmark))
