"""How many requests does the service answer, beside faster-whisper?  ``python -m benchmarks.served --output FILE ...``.

The service with stock whisper-base and with the same weights after ``jobs.adapt_context``, over HTTP on this machine,
beside faster-whisper behind a small web app (``faster_whisper_app``), one request for one call, and the same with its
batched pipeline. Clients wait for each answer before they send the next request. All systems stay loaded and are
measured in turns: in each round every load once, in the reverse order every second time.

- ``sentences``: real people's English sentences of 2 to 15 s that do not fall back to higher temperatures.
- ``a third falls back``: every third is a string of digits whose first text is implausible.
- ``one in 8 falls back``: what the others' seconds are then, beside those of ``sentences``.
- ``offline``: the same sentences by our engine in this process, in batches of eight, with as many threads: what
  the way over HTTP costs.

What is fair: all models are int8 and decode greedily without times in two threads. faster-whisper's batched pipeline
has no temperature fallback, so it has no part in loads that fall back. The clients run in this process beside the
systems. It needs a machine that does nothing else.
"""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import ray
from pydantic import Field
from rich.progress import track

from benchmarks.common import PACKAGES, Row, describe_machine, print_table, write_result
from benchmarks.served_clips import OPTIONS, Clip, mix, read_clips
from serve.launch import start_ray, start_service, stop_service
from serve.models.promotion import Promotion, promote
from serve.settings import ServeConfig
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer

QUESTION = "How many requests does the service answer with real weights, beside faster-whisper behind a web app?"
_VERSIONED = (*PACKAGES, "onnxruntime", "faster-whisper", "ctranslate2", "fastapi", "uvicorn")
_VARIANT = "int8"
_BATCH_SIZE = 8
_NUM_THREADS = 2
_PEER_PORT = 9_801
_TIMEOUT_S = 600.0
_PEER_START_S = 60.0


class ServedBenchmark(Config):
    """Measure the service beside peers."""

    output: Path
    """JSON file that receives the result."""
    base: Path
    """The stock checkpoint."""
    adapted: Path
    """The checkpoint that ``jobs.adapt_context`` made of it."""
    exports: Path = Path("runs/adapted_context")
    """Folder with the exports ``stock`` and ``adapted`` of ``benchmarks.adapted_context``."""
    manifest: Path
    """Speech; its English utterances of 2 to 15 s are sent."""
    digits: Path
    """Audio folder of ``jobs.make_digits``."""
    num_requests: int = Field(default=24, ge=8)
    """In one load with 8 clients; twice as many with 32."""
    repetitions: int = Field(default=5, ge=1)
    port: int = 9_800


@dataclass
class Load:
    """One system under one load, and its measurements."""

    system: str
    load: str
    run: Callable[[], "list[tuple[Clip, float]] | None"]
    """Send it once; return the seconds of each clip's answer, or None where nobody asked."""
    num_requests: int
    rates: list[float] = field(default_factory=list)
    """Requests per second, by repetition."""
    healthy_s: list[float] = field(default_factory=list)
    """Seconds of each answer about a clip that does not fall back."""

    def measure(self) -> None:
        """Send it once."""
        started = time.monotonic()
        answers = self.run()
        self.rates.append(self.num_requests / (time.monotonic() - started))
        self.healthy_s += [seconds for clip, seconds in answers or () if not clip.falls_back]

    def row(self) -> Row:
        """Return its line of the result."""
        low, median, high = (float(value) for value in np.percentile(self.rates, (25, 50, 75)))
        row = {"system": self.system, "load": self.load, "requests_per_s": median, "q1": low, "q3": high}
        if not self.healthy_s:
            return row
        p50, p95 = (float(value) for value in np.percentile(self.healthy_s, (50, 95)))
        return row | {"healthy_p50_s": p50, "healthy_p95_s": p95, "healthy": len(self.healthy_s)}


def main(config: ServedBenchmark) -> None:
    """Start all systems, measure them in turns, and write the result."""
    setup_logging()
    machine = describe_machine(_VERSIONED)
    offline = {name: _recognizer(config.exports / name) for name in ("stock", "adapted")}
    clips = read_clips(config.manifest, config.digits, offline["stock"])
    with _peers(config) as peers, _service(config) as base_url:
        loads = _loads(config, base_url, peers, offline, *clips)
        for load in loads:
            load.run()  # connections and caches
        for repetition in track(range(config.repetitions), description="rounds"):
            for load in loads if repetition % 2 == 0 else reversed(loads):
                load.measure()
        memory = _replica_bytes()
    rows = [load.row() for load in loads] + _compare(loads)
    conditions = {
        "healthy_clips": len(clips[0]),
        "clips_that_fall_back": len(clips[1]),
        "their_temperatures": [clip.temperature for clip in clips[1]],
        "replica_rss_mb": memory / 1e6,
        "repetitions": config.repetitions,
        "num_requests": config.num_requests,
        "load_1_min_after": os.getloadavg()[0],
    }
    write_result(config.output, QUESTION, [*rows, conditions], machine=machine)
    print_table(QUESTION, rows)


def _recognizer(export: Path) -> Recognizer:
    return load_recognizer(export, variant=_VARIANT, num_threads=_NUM_THREADS, device="cpu")


@contextmanager
def _peers(config: ServedBenchmark) -> Iterator[dict[str, str]]:
    """Run faster-whisper's apps with the stock weights; yield their base URLs."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.faster_whisper_app",
        "--folder",
        str(config.exports / "stock/ct2-int8"),
    ]
    names = {"faster-whisper": "--no-batched", "faster-whisper batched": "--batched"}
    processes: list[subprocess.Popen[bytes]] = []
    urls: dict[str, str] = {}
    try:
        for port, (name, flag) in enumerate(names.items(), start=_PEER_PORT):
            processes.append(subprocess.Popen([*command, "--port", str(port), flag]))
            urls[name] = f"http://127.0.0.1:{port}/v1"
        for url in urls.values():
            _wait(url)
        yield urls
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(url: str) -> None:
    """Wait until somebody answers, whatever it is."""
    until = time.monotonic() + _PEER_START_S
    while True:
        try:
            httpx.get(url)
        except httpx.HTTPError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return


@contextmanager
def _service(config: ServedBenchmark) -> Iterator[str]:
    """Promote both models and serve them; yield the base URL."""
    start_ray(host="127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        for name, checkpoint in (("stock", config.base), ("adapted", config.adapted)):
            promote(
                Promotion(
                    name=name,
                    checkpoint=str(checkpoint),
                    export=str(config.exports / name),
                    variant=_VARIANT,
                    models_folder=Path(folder),
                )
            )
        service = ServeConfig(model_id="stock", models_folder=folder, embedded_until_promoted=False)
        yield start_service(service, port=config.port)
        stop_service()
    ray.shutdown()


def _loads(
    config: ServedBenchmark,
    base_url: str,
    peers: dict[str, str],
    offline: dict[str, Recognizer],
    healthy: Sequence[Clip],
    falling: Sequence[Clip],
) -> list[Load]:
    """Return every load on every system."""
    count = config.num_requests
    sentences = [*itertools.islice(itertools.cycle(healthy), count)]
    twice = [*itertools.islice(itertools.cycle(healthy), 2 * count)]
    third = mix(healthy, falling, every=3, count=count)
    eighth = mix(healthy, falling, every=8, count=count)
    loads: list[Load] = []
    for name, recognizer in offline.items():
        send = partial(_send, base_url, name)
        loads += [
            Load(name, "offline", partial(_decode, recognizer, sentences), count),
            Load(name, "sentences, 8 clients", partial(send, sentences, 8), count),
            Load(name, "sentences, 32 clients", partial(send, twice, 32), 2 * count),
            Load(name, "a third falls back, 8 clients", partial(send, third, 8), count),
            Load(name, "one in 8 falls back, 8 clients", partial(send, eighth, 8), count),
        ]
    for name, url in peers.items():
        loads.append(Load(name, "sentences, 8 clients", partial(_send, url, name, sentences, 8), count))
    plain = next(iter(peers))
    loads.append(Load(plain, "a third falls back, 8 clients", partial(_send, peers[plain], plain, third, 8), count))
    return loads


def _decode(recognizer: Recognizer, clips: Sequence[Clip]) -> None:
    for first in range(0, len(clips), _BATCH_SIZE):
        batch = [clip.waveform for clip in clips[first : first + _BATCH_SIZE]]
        recognizer.recognize(batch, [OPTIONS] * len(batch))


def _send(base_url: str, model: str, clips: Sequence[Clip], num_clients: int) -> list[tuple[Clip, float]]:
    return asyncio.run(_send_all(base_url, model, clips, num_clients))


async def _send_all(base_url: str, model: str, clips: Sequence[Clip], num_clients: int) -> list[tuple[Clip, float]]:
    """Let clients send clips in turns until none is left; return the seconds of each answer."""
    left = iter(clips)
    answers: list[tuple[Clip, float]] = []
    async with httpx.AsyncClient(base_url=base_url, timeout=_TIMEOUT_S) as client:

        async def send() -> None:
            for clip in left:
                started = time.monotonic()
                response = await client.post(
                    "/audio/transcriptions",
                    files={"file": ("speech.wav", clip.data)},
                    data={"model": model, "language": "en"},
                )
                response.raise_for_status()
                answers.append((clip, time.monotonic() - started))

        await asyncio.gather(*(send() for _ in range(num_clients)))
    return answers


def _replica_bytes() -> int:
    """Return the resident memory of the largest transcriber."""
    processes = psutil.process_iter(["cmdline", "memory_info"])
    replicas = [
        one.info["memory_info"].rss for one in processes if "Transcriber" in " ".join(one.info["cmdline"] or ())
    ]
    return max(replicas, default=0)


def _compare(loads: Sequence[Load]) -> list[Row]:
    """Return the ratios of the rates, repetition by repetition: the median, and the quartiles."""
    rates = {(load.system, load.load): load.rates for load in loads}
    sentences, third = "sentences, 8 clients", "a third falls back, 8 clients"
    best = max(("faster-whisper", "faster-whisper batched"), key=lambda name: statistics.median(rates[name, sentences]))
    rows = []
    for name in ("stock", "adapted"):
        rows += [
            _ratio(f"{name} over {best}: {sentences}", rates[name, sentences], rates[best, sentences]),
            _ratio(f"{name} over faster-whisper: {third}", rates[name, third], rates["faster-whisper", third]),
            _ratio(f"{name}, 8 clients, over offline", rates[name, sentences], rates[name, "offline"]),
            _ratio(f"{name}, 32 clients, over offline", rates[name, "sentences, 32 clients"], rates[name, "offline"]),
        ]
    p95 = {(load.system, load.load): float(np.percentile(load.healthy_s, 95)) for load in loads if load.healthy_s}
    for name in ("stock", "adapted"):
        rows.append(
            {
                "ratio": f"{name}: p95 of sentences while one in 8 falls back, over without",
                "times": p95[name, "one in 8 falls back, 8 clients"] / p95[name, sentences],
            }
        )
    return rows


def _ratio(name: str, mine: Sequence[float], others: Sequence[float]) -> Row:
    low, median, high = (float(value) for value in np.percentile(np.divide(mine, others), (25, 50, 75)))
    return {"ratio": name, "times": median, "times_low": low, "times_high": high}


if __name__ == "__main__":
    main(load_config(ServedBenchmark))
