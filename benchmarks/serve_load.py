"""What does the service do under load?  ``python -m benchmarks.serve_load --mode closed --output FILE``.

It starts the service on a Ray of its own and sends real people's recordings of mixed lengths:

- ``closed``: clients that wait for each answer before they send the next request.
- ``open``: requests at random times with a mean rate, whether or not those before are answered.
- ``soak``: an hour of ``closed`` with eight clients: nothing may be lost, and memory may not grow.
- ``overload``: half a minute of ``closed`` with 640 clients, ten times what the service accepts. What it accepts is
  answered before the deadline; the rest is refused at once with the time to come back, which the clients wait.

The clients run in this process, beside the service: on two cores they cost it some speed.
"""

import asyncio
import os
import socket
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import ray
from pydantic import Field

from benchmarks.common import PACKAGES, Row, describe_machine, print_table, write_result
from benchmarks.load_clients import Load, build_client
from benchmarks.load_recordings import draw_uploads, read_uploads
from benchmarks.load_report import MemorySample, sample_memory, summarize, summarize_memory, write_plot
from serve.launch import start_ray, start_service, stop_service
from serve.settings import Autoscaling, ServeConfig
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.model.variants import Device, ServedVariant

Mode: TypeAlias = Literal["closed", "open", "soak", "overload"]

QUESTION = "What becomes of requests under load: their seconds, refusals and losses, and the memory of the replicas?"
_NUM_CLIENTS: dict[Mode, int] = {"closed": 8, "open": 0, "soak": 8, "overload": 640}
_DURATION_S: dict[Mode, float] = {"closed": 60.0, "open": 60.0, "soak": 3600.0, "overload": 30.0}
_SAMPLE_S = 5.0
_NOT_SHOWN = "samples"  # it is in the file


class ServeLoad(Config):
    """One load on one service."""

    mode: Mode = "soak"
    model: str | None = None
    """Checkpoint or export folder to serve; the embedded model when None."""
    variant: ServedVariant = "int8"
    """Of that model."""
    device: Device = "cpu"
    """Where transcribers compute."""
    num_clients: int | None = Field(default=None, ge=1)
    """Clients of a closed loop; 8, or 640 for overload, when None."""
    duration_s: float | None = Field(default=None, gt=0.0)
    """Seconds in which requests start; 60, 3600 for soak, 30 for overload, when None."""
    requests_per_s: float = Field(default=2.0, gt=0.0)
    """Mean rate of an open loop."""
    num_replicas: int = Field(default=1, ge=1)
    """Transcriber replicas; their number is fixed, so that memory can be compared."""
    recordings: Path = Path("../shared/data/real")
    """Folder with manifest.jsonl."""
    seed: int = 0
    """Of the order of recordings, and of an open loop's times."""
    output: Path
    """JSON file that receives the result; the plot is written beside it as SVG."""


def main(settings: ServeLoad) -> None:
    """Start the service, load it, and write what became of the requests."""
    setup_logging()
    machine = describe_machine((*PACKAGES, "onnxruntime"))  # before the load: it names the machine's own
    start_ray(host="127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        service = _service(settings, models_folder=folder)
        base_url = start_service(service, port=_free_port())
        load, samples = asyncio.run(_measure(settings, service, base_url))
        stop_service()
    ray.shutdown()
    limits = service.limits
    rows = summarize(load.outcomes, deadline_s=limits.deadline_s, deadline_per_audio_s=limits.deadline_per_audio_s)
    _write(settings, load, [*rows, *summarize_memory(samples)], samples, machine)


def _service(settings: ServeLoad, *, models_folder: str) -> ServeConfig:
    return ServeConfig(
        model=settings.model,
        variant=settings.variant,
        device=settings.device,
        models_folder=models_folder,
        embedded_until_promoted=settings.model is None,
        transcriber_scaling=Autoscaling(min_replicas=settings.num_replicas, max_replicas=settings.num_replicas),
        gateway_scaling=Autoscaling(target_ongoing_requests=32.0),
    )


async def _measure(settings: ServeLoad, service: ServeConfig, base_url: str) -> tuple[Load, list[MemorySample]]:
    """Load the service, and read its memory meanwhile."""
    uploads = read_uploads(settings.recordings, seed=settings.seed)
    samples: list[MemorySample] = []
    longest_s = max(upload.audio_s for upload in uploads)
    deadline_s = service.limits.deadline_s + service.limits.deadline_per_audio_s * longest_s
    load = Load(
        partial(build_client, base_url, deadline_s=deadline_s),
        draw_uploads(uploads, seed=settings.seed),
        model=service.model_id,
        duration_s=settings.duration_s or _DURATION_S[settings.mode],
    )
    sampling = asyncio.create_task(_sample(load, samples))
    if settings.mode == "open":
        await load.run_open(settings.requests_per_s, seed=settings.seed)
    else:
        await load.run_closed(settings.num_clients or _NUM_CLIENTS[settings.mode])
    sampling.cancel()
    samples.append(sample_memory(load.elapsed_s()))
    return load, samples


async def _sample(load: Load, samples: list[MemorySample]) -> None:
    while True:
        samples.append(await asyncio.to_thread(sample_memory, load.elapsed_s()))
        await asyncio.sleep(_SAMPLE_S)


def _write(
    settings: ServeLoad, load: Load, rows: Sequence[Row], samples: Sequence[MemorySample], machine: dict[str, str]
) -> None:
    """Write the rows with the settings, the plot, and the table on the terminal."""
    conditions: Row = {
        "what": "conditions",
        **settings.model_dump(mode="json", exclude={"output", "recordings"}),
        "load_1_min_after": os.getloadavg()[0],
    }
    write_result(settings.output, QUESTION, [conditions, *rows], machine=machine)
    write_plot(settings.output.with_suffix(".svg"), load.outcomes, samples)
    shown = [{name: value for name, value in row.items() if name != _NOT_SHOWN} for row in rows]
    print_table(f"The service under load: {settings.mode}", shown)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main(load_config(ServeLoad))
