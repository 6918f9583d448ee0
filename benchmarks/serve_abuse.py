"""Do other clients notice while some abuse the service?

``python -m benchmarks.serve_abuse --output FILE`` starts the real server and lets two clients transcribe a few seconds
of speech again and again: alone, during each abuse, and from five seconds after it. Then comes a crowd.
"""

import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from pydantic import Field

from benchmarks.abusive_clients import Abuse, abuses, crowd, spoken_minute, wav
from benchmarks.common import Row, describe_machine, print_table, write_result
from benchmarks.http_posts import Answer, post, speech_form
from sottovoce.config import Config, load_config
from sottovoce.schema import SAMPLING_RATE

_QUESTION = "Do other clients notice while some abuse the service?"
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 60.0
_RECOVERY_S = 5.0
_NUM_CLIENTS = 2
_PAUSE_S = 0.2
_SPOKEN_S = 3.0


class ServeAbuse(Config):
    """How long each phase lasts, and what is served."""

    seconds: float = Field(default=30.0, gt=0.0)
    """Of each phase."""
    num_crowd: int = Field(default=640, ge=0)
    """Clients of the crowd."""
    model: str | None = None
    """Model folder; the embedded model when None."""
    variant: str = "int8"
    """Variant of the model."""
    only: str = ""
    """Part of the name of the abuses that are run; empty runs all."""
    output: Path
    """JSON file that receives the result."""


@contextmanager
def running_server(settings: ServeAbuse, folder: Path) -> Iterator[int]:
    """Run ``jobs.serve_model`` in a process of its own; yields its port.

    Raises:
        RuntimeError: it did not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = ["--port", str(port), "--models-folder", str(folder / "models"), "--quickstart-folder", str(folder)]
    if settings.model is not None:
        options += ["--model", settings.model, "--variant", settings.variant]
    command = [sys.executable, "-m", "jobs.serve_model", *options]
    log = (folder / "server.log").open("w", encoding="utf-8")
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(server, folder / "server.log")
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


def _wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while "ready" not in (written := log.read_text(encoding="utf-8")):
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server did not start:\n{written}")
        time.sleep(0.2)


class GatewayMemory(threading.Thread):
    """Sample the memory of the gateway replicas and of their decoders."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopped = threading.Event()
        self.peak_bytes = 0
        """Of the gateways since ``reset``."""
        self.peak_with_decoders_bytes = 0

    def run(self) -> None:
        """Sample until stopped."""
        gateways: list[psutil.Process] = []
        while not self._stopped.wait(0.2):
            gateways = [one for one in gateways if one.is_running()] or _find_gateways()
            try:
                own = [one.memory_info().rss for one in gateways]
                decoders = [child.memory_info().rss for one in gateways for child in one.children()]
            except psutil.NoSuchProcess:
                continue
            self.peak_bytes = max([self.peak_bytes, *own])
            self.peak_with_decoders_bytes = max(self.peak_with_decoders_bytes, sum(own) + sum(decoders))

    def reset(self) -> None:
        """Forget the peaks."""
        self.peak_bytes = self.peak_with_decoders_bytes = 0

    def stop(self) -> None:
        """Sample no more."""
        self._stopped.set()
        self.join()


def _find_gateways() -> list[psutil.Process]:
    """Find the gateway replicas of this process's server; Ray writes an actor's class over its command."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if command and "ServeReplica" in command[0] and "Gateway" in command[0]:
            found.append(process)
    return found


async def _measure(port: int, body: bytes, seconds: float) -> list[Answer | None]:
    """Let the other clients work for so long; None is a lost connection."""
    answers: list[Answer | None] = []

    async def client() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                answers.append(await post(port, body))
            except OSError:
                answers.append(None)
            await asyncio.sleep(_PAUSE_S)

    await asyncio.gather(*(client() for _ in range(_NUM_CLIENTS)))
    return answers


def _summary(answers: list[Answer | None]) -> dict[str, float | int]:
    answered = [answer.seconds for answer in answers if answer is not None and answer.status == 200]
    p50, p95 = np.percentile(answered, (50, 95)) if answered else (float("nan"), float("nan"))
    return {
        "answered": len(answered),
        "refused": len(answers) - len(answered),
        "p50_s": float(p50),
        "p95_s": float(p95),
    }


async def _abuse(name: str, abuse: Abuse, port: int, body: bytes, settings: ServeAbuse, memory: GatewayMemory) -> Row:
    idle = _summary(await _measure(port, body, settings.seconds / 2))
    memory.reset()
    abusing = asyncio.ensure_future(abuse(port, settings.seconds))
    during = _summary(await _measure(port, body, settings.seconds))
    outcomes = await abusing
    peak, with_decoders = memory.peak_bytes, memory.peak_with_decoders_bytes
    await asyncio.sleep(_RECOVERY_S)
    after = _summary(await _measure(port, body, settings.seconds / 2))
    return {
        "abuse": name,
        "idle": idle,
        "during": during,
        "p95_to_idle": round(during["p95_s"] / idle["p95_s"], 2),
        "after_5_s": after,
        "p95_after_to_idle": round(after["p95_s"] / idle["p95_s"], 2),
        "gateway_peak_gb": round(peak / 1e9, 3),
        "gateway_and_decoders_peak_gb": round(with_decoders / 1e9, 3),
        "outcomes": dict(outcomes),
    }


async def _crowd(port: int, body: bytes, settings: ServeAbuse, memory: GatewayMemory) -> Row:
    memory.reset()
    outcomes = await crowd(port, body, num_clients=settings.num_crowd, seconds=settings.seconds)
    answers = [answer for answer in outcomes if answer is not None]
    accepted = [answer.seconds for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 503]
    refused_s = [answer.seconds for answer in refused]
    return {
        "abuse": f"{settings.num_crowd} clients",
        "statuses": {str(status): count for status, count in Counter(answer.status for answer in answers).items()},
        "connections_lost": len(outcomes) - len(answers),
        "accepted_p95_s": float(np.percentile(accepted, 95)) if accepted else None,
        "accepted_max_s": max(accepted, default=None),
        "refused_p50_s": float(np.percentile(refused_s, 50)) if refused_s else None,
        "refused_p95_s": float(np.percentile(refused_s, 95)) if refused_s else None,
        "refused_max_s": max(refused_s, default=None),
        "refused_with_retry_after": sum("retry-after" in answer.headers for answer in refused),
        "gateway_peak_gb": round(memory.peak_bytes / 1e9, 3),
    }


async def _run_all(port: int, settings: ServeAbuse, memory: GatewayMemory, machine: Mapping[str, str]) -> list[Row]:
    """Measure each abuse and the crowd; the file is written after each."""
    spoken = wav(spoken_minute()[: round(_SPOKEN_S * SAMPLING_RATE)])
    body = speech_form(spoken)
    await _measure(port, body, _RECOVERY_S)  # the first requests start decoders
    rows = []
    for name, abuse in abuses(spoken).items():
        if settings.only in name:
            rows.append(await _abuse(name, abuse, port, body, settings, memory))
            print(rows[-1], flush=True)
            write_result(settings.output, _QUESTION, rows, machine=machine)
    if settings.num_crowd:
        rows.append(await _crowd(port, body, settings, memory))
        write_result(settings.output, _QUESTION, rows, machine=machine)
    return rows


def main(settings: ServeAbuse) -> None:
    """Start the server, abuse it, and write the result."""
    machine = describe_machine()
    memory = GatewayMemory()
    with tempfile.TemporaryDirectory() as folder, running_server(settings, Path(folder)) as port:
        memory.start()
        rows = asyncio.run(_run_all(port, settings, memory, machine))
        memory.stop()
    print_table("Abuse", rows)


if __name__ == "__main__":
    main(load_config(ServeAbuse))
