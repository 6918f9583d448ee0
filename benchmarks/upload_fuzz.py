"""Does any broken upload crash the gateway, hang it, or get a 5xx?

``python -m benchmarks.upload_fuzz --num-uploads 1000000 --output FILE`` sends mutated recordings and forms to the
gateway's application, decoded in its own processes; only the transcribers are stand-ins that answer at once. The file
is written after every ten thousand; stopped before its end, the same command goes on from there.
"""

import asyncio
import json
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Generator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import Field
from rich.progress import track

from benchmarks.broken_uploads import Upload, mutated_uploads
from benchmarks.common import Row, print_table, write_result
from serve.gateway import Gateway
from serve.models.model_plan import ModelEntry, ModelPlan
from serve.models.served_model import ServedModel
from serve.settings import Limits
from serve.windows import BroadcastResults
from sottovoce.config import Config, load_config
from sottovoce.schema import DecodeOptions, WindowResult

Application: TypeAlias = Callable[..., Any]
HANG_S = 10.0
"""An upload that is not answered within so many seconds hangs."""
_QUESTION = "Does any broken upload crash the gateway, hang it, or get a 5xx?"
_CHUNK = 10_000
"""Uploads that one gateway receives, before the next begins."""
_NUM_AT_ONCE = 4


class UploadFuzz(Config):
    """How many uploads, in how many processes."""

    num_uploads: int = Field(default=1_000_000, ge=1)
    """Mutated uploads."""
    num_processes: int = Field(default=2, ge=1)
    """Gateways, each with decoders of its own."""
    seed: int = 0
    """Of the mutations; the same seed sends the same uploads."""
    output: Path
    """JSON file that receives the result; one that holds fewer uploads of the same seed is gone on with."""


@dataclass
class Tally:
    """What became of the uploads."""

    statuses: Counter[int] = field(default_factory=Counter)
    num_hangs: int = 0
    num_crashes: int = 0
    """Exceptions that left the application."""
    num_deaths: int = 0
    """Decoder processes that died."""
    slowest_s: float = 0.0
    seconds: float = 0.0
    """In which a gateway was sent uploads, from its start to its end."""

    def add(self, other: "Tally") -> None:
        """Add the uploads of another gateway."""
        self.statuses.update(other.statuses)
        self.num_hangs += other.num_hangs
        self.num_crashes += other.num_crashes
        self.num_deaths += other.num_deaths
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.seconds += other.seconds

    @property
    def num_uploads(self) -> int:
        """Uploads with an outcome."""
        return self.statuses.total() + self.num_hangs + self.num_crashes

    @property
    def num_5xx(self) -> int:
        """Answers that blame the service."""
        return sum(count for status, count in self.statuses.items() if status >= 500)


async def send_all(application: Application, uploads: Generator[Upload, None, None]) -> Tally:
    """Send uploads, a few at a time, to an application that has been started."""
    tally = Tally()

    async def client() -> None:
        for upload in uploads:
            started = time.monotonic()
            try:
                async with asyncio.timeout(HANG_S):
                    tally.statuses[await _send(application, upload)] += 1
            except TimeoutError:
                tally.num_hangs += 1
            except Exception:  # counted, and shown with its traceback
                logging.getLogger(__name__).exception("an exception left the application")
                tally.num_crashes += 1
            tally.slowest_s = max(tally.slowest_s, time.monotonic() - started)

    await asyncio.gather(*(client() for _ in range(_NUM_AT_ONCE)))
    return tally


async def _send(application: Application, upload: Upload) -> int:
    waiting = [{"type": "http.request", "body": upload.body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    path = "/v1/audio/transcriptions"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", upload.content_type), (b"content-length", str(len(upload.body)).encode())],
    }
    await application(scope, receive, send)
    return statuses[0]


class InstantTranscriber:
    """A handle whose windows are answered at once with the same text."""

    def options(self, *, multiplexed_model_id: str) -> "InstantTranscriber":
        """Return itself, with the model that is asked for."""
        self._key = multiplexed_model_id
        return self

    def broadcast(self, method_name: str, key: str) -> BroadcastResults:
        """Refuse: nothing is promoted here."""
        raise NotImplementedError

    @property
    def transcribe(self) -> "_Method":
        """Answer a window."""
        return _Method(lambda _pcm, options: _result(options))

    @property
    def describe(self) -> "_Method":
        """Describe the model."""
        return _Method(lambda: ServedModel(2.0, 10.0, {"en": "english"}, key=self._key))


@dataclass(frozen=True)
class _Method:
    answer: Callable[..., Any]

    def remote(self, *given: Any) -> "_Pending":  # noqa: ANN401 - a window, or nothing
        return _Pending(self.answer(*given))


@dataclass(frozen=True)
class _Pending:
    answer: Any

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self.answer

    def cancel(self) -> None:
        pass


def _result(options: DecodeOptions) -> WindowResult:
    return WindowResult(
        text="text",
        token_ids=(1,),
        language=options.language or "en",
        language_probability=None if options.language else 0.75,
        avg_logprob=-0.5,
        no_speech_prob=0.125,
        compression_ratio=0.5,
        segments=(),
        words=(),
        token_logprobs=(),
    )


@dataclass(frozen=True)
class OneModel:
    """A model repository with one model that needs no files."""

    default: str = "sottovoce"
    aliases: tuple[str, ...] = ()

    def read(self) -> dict[str, ModelEntry]:
        """Return the model."""
        plan = ModelPlan(key="sottovoce@int8/1", folder="none", variant="int8", created=0)
        return {self.default: ModelEntry(name=self.default, default="int8", plans={"int8": plan}, refused={})}


class _CountDeaths(logging.Handler):
    """Count decoder processes that died."""

    num_deaths = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.num_deaths += 1


def fuzz_gateway(num_uploads: int, seed: tuple[int, int]) -> Tally:
    """Send mutated uploads to one gateway with decoder processes."""
    logging.basicConfig(level=logging.ERROR)  # says how a decoder died
    deaths = _CountDeaths(level=logging.ERROR)
    logging.getLogger("serve.decoding").addHandler(deaths)
    started = time.monotonic()

    async def main() -> Tally:
        gateway = Gateway(InstantTranscriber(), source=OneModel(), limits=Limits(), api_keys_env=None)
        application = gateway.build_api()
        async with application.router.lifespan_context(application):
            return await send_all(application, mutated_uploads(num_uploads, seed=seed))

    tally = asyncio.run(main())
    logging.getLogger("serve.decoding").removeHandler(deaths)
    tally.num_deaths = deaths.num_deaths
    tally.seconds = time.monotonic() - started
    return tally


def _fuzz_chunk(given: tuple[int, tuple[int, int]]) -> Tally:
    return fuzz_gateway(*given)


def read_tally(settings: UploadFuzz) -> Tally:
    """Read what an earlier run of the same seed that was stopped had sent; nothing where there was none."""
    if not settings.output.exists():
        return Tally()
    (row,) = json.loads(settings.output.read_text(encoding="utf-8"))["results"]
    if row["seed"] != settings.seed or row["uploads"] >= settings.num_uploads or row["uploads"] % _CHUNK:
        return Tally()
    return Tally(
        statuses=Counter({int(status): count for status, count in row["statuses"].items()}),
        num_hangs=row["hangs"],
        num_crashes=row["exceptions"],
        num_deaths=row["decoders_died"],
        slowest_s=row["slowest_s"],
        seconds=row["gateway_s"],
    )


def _row(tally: Tally, seed: int) -> Row:
    return {
        "seed": seed,
        "uploads": tally.num_uploads,
        "5xx": tally.num_5xx,
        "exceptions": tally.num_crashes,
        "decoders_died": tally.num_deaths,
        "hangs": tally.num_hangs,
        "slowest_s": round(tally.slowest_s, 3),
        "gateway_s": round(tally.seconds, 1),
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
    }


def main(settings: UploadFuzz) -> None:
    """Share the uploads among processes and write what became of them, chunk by chunk."""
    total = read_tally(settings)
    starts = range(total.num_uploads, settings.num_uploads, _CHUNK)
    given = [(min(_CHUNK, settings.num_uploads - start), (settings.seed, start)) for start in starts]
    with multiprocessing.get_context("spawn").Pool(settings.num_processes) as pool:
        for tally in track(pool.imap(_fuzz_chunk, given), f"Uploads by {_CHUNK}", total=len(given)):
            total.add(tally)
            write_result(settings.output, _QUESTION, [_row(total, settings.seed)])
    print_table("Mutated uploads", [_row(total, settings.seed)])


if __name__ == "__main__":
    main(load_config(UploadFuzz))
