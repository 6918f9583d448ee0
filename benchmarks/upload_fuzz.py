"""Does any broken upload crash the gateway, hang it, or get a 5xx?

``python -m benchmarks.upload_fuzz --num-uploads 1000000 --output FILE`` sends mutated recordings and forms to the
gateway's application, decoded in its own processes; only the transcribers are stand-ins that answer at once.
"""

import asyncio
import io
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import soundfile
from numpy.random import Generator as Random
from pydantic import Field

from benchmarks.abusive_clients import encode_av
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
_NUM_AT_ONCE = 4
_SECONDS = 0.2  # of audio in each recording
_BOUNDARY = b"fuzzed"
_ODD_TEXTS = (
    *("", "0", "-1", "1e400", "nan", "true", "[]", "{}", "{", "null", "\x00", "../../etc/passwd", "sottovoce@int8"),
    *("\ud83d", "a" * 20_000, "en", "xx", "segment", "word", "json", "srt", "verbose_json", "auto", '{"type":1}', "%s"),
)
_FIELDS = (
    *("model", "language", "prompt", "response_format", "temperature", "stream", "include[]", "file"),
    *("timestamp_granularities[]", "chunking_strategy", "chunking_strategy[type]", "nope", ""),
)
_HEADER_BYTES = 64  # first bytes of a container, where most mutations go


class UploadFuzz(Config):
    """How many uploads, in how many processes."""

    num_uploads: int = Field(default=1_000_000, ge=1)
    """Mutated uploads."""
    num_processes: int = Field(default=2, ge=1)
    """Gateways, each with decoders of its own."""
    seed: int = 0
    """Of the mutations; the same seed sends the same uploads."""
    output: Path
    """JSON file that receives the result."""


@dataclass(frozen=True)
class Upload:
    """One request."""

    body: bytes
    content_type: bytes


@dataclass
class Tally:
    """What became of the uploads."""

    statuses: Counter[int] = field(default_factory=Counter)
    num_hangs: int = 0
    num_crashes: int = 0
    """Decoder processes that died, and exceptions that left the application."""
    slowest_s: float = 0.0

    def add(self, other: "Tally") -> None:
        """Add the uploads of another process."""
        self.statuses.update(other.statuses)
        self.num_hangs += other.num_hangs
        self.num_crashes += other.num_crashes
        self.slowest_s = max(self.slowest_s, other.slowest_s)

    @property
    def num_5xx(self) -> int:
        """Answers that blame the service."""
        return sum(count for status, count in self.statuses.items() if status >= 500)


def recordings() -> list[bytes]:
    """Encode a fifth of a second of noise in every container that people send."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(48_000 * _SECONDS)).astype(np.float32)
    encoded = []
    for container, subtype in (
        *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
        *(("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16")),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 48_000, format=container, subtype=subtype)
        encoded.append(buffer.getvalue())
    for container, codec in (("mp4", "aac"), ("webm", "libopus"), ("ogg", "libopus"), ("adts", "aac"), ("avi", "mp3")):
        encoded.append(encode_av(noise, container, codec, rate=48_000))
    return encoded


def mutated_uploads(num_uploads: int, *, seed: int) -> Generator[Upload, None, None]:
    """Yield uploads: three of four with a mutated recording, the others with a mutated form."""
    random = np.random.default_rng(seed)
    encoded = recordings()
    for _ in range(num_uploads):
        data = encoded[random.integers(len(encoded))]
        if random.random() < 0.75:
            yield Upload(form(_mutate(data, encoded, random), {"model": "sottovoce"}), _content_type(_BOUNDARY))
        else:
            yield _mutate_form(data, random)


def form(data: bytes, fields: Mapping[str, str]) -> bytes:
    """Return a multipart body with a file and text fields."""
    parts = [_part(name, value.encode("utf-8", "surrogatepass")) for name, value in fields.items()]
    parts.append(_part("file", data, filename="a.wav"))
    return b"".join(parts) + b"--" + _BOUNDARY + b"--\r\n"


def _part(name: str, value: bytes, filename: str | None = None) -> bytes:
    head = f'content-disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return b"--" + _BOUNDARY + b"\r\n" + head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + value + b"\r\n"


def _content_type(boundary: bytes) -> bytes:
    return b"multipart/form-data; boundary=" + boundary


def _mutate(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Flip, overwrite, cut, insert, repeat or splice bytes, mostly those of the header."""
    array = bytearray(data)
    for _ in range(random.integers(1, 4)):
        span = max(1, min(_HEADER_BYTES, len(array)) if random.random() < 0.6 else len(array))
        _MUTATIONS[random.integers(len(_MUTATIONS))](array, int(random.integers(span)), others, random)
    return bytes(array)


def _flip(array: bytearray, place: int, _: Sequence[bytes], random: Random) -> None:
    for index in random.integers(0, place + 1, size=random.integers(1, 8)):
        array[index : index + 1] = random.bytes(1)


def _overwrite(array: bytearray, place: int, _: Sequence[bytes], random: Random) -> None:
    array[place : place + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"][random.integers(3)]


def _cut(array: bytearray, place: int, _others: Sequence[bytes], _random: Random) -> None:
    del array[place:]


def _insert(array: bytearray, place: int, _: Sequence[bytes], random: Random) -> None:
    array[place:place] = random.bytes(int(random.integers(1, 64)))


def _repeat(array: bytearray, place: int, _others: Sequence[bytes], _random: Random) -> None:
    array += array[place : place + 4096]


def _splice(array: bytearray, place: int, others: Sequence[bytes], random: Random) -> None:
    array[place:] = others[int(random.integers(len(others)))][place:]


_MUTATIONS = (_flip, _overwrite, _cut, _insert, _repeat, _splice)


def _mutate_form(data: bytes, random: Random) -> Upload:
    fields = {"model": "sottovoce"} if random.random() < 0.9 else {}
    for _ in range(random.integers(0, 4)):
        fields[_FIELDS[random.integers(len(_FIELDS))]] = _ODD_TEXTS[random.integers(len(_ODD_TEXTS))]
    body = bytearray(form(data, fields))
    boundary = _BOUNDARY
    kind = random.random()
    if kind < 0.4:
        for index in random.integers(0, min(len(body), 400), size=random.integers(1, 6)):
            body[index] = random.integers(256)
    elif kind < 0.5:
        del body[random.integers(len(body)) :]
    elif kind < 0.6:
        boundary = random.bytes(int(random.integers(0, 80))).replace(b"\n", b"").replace(b"\r", b"")
    charset = (
        b"" if random.random() < 0.9 else b"; charset=" + [b"utf-16", b"undefined", b"utf-7"][int(random.integers(3))]
    )
    return Upload(bytes(body), _content_type(boundary) + charset)


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


def fuzz_gateway(num_uploads: int, seed: int) -> Tally:
    """Send mutated uploads to one gateway with decoder processes."""
    deaths = _CountDeaths(level=logging.ERROR)
    logging.getLogger("serve.decoding").addHandler(deaths)

    async def main() -> Tally:
        gateway = Gateway(InstantTranscriber(), source=OneModel(), limits=Limits(), api_keys_env=None)
        application = gateway.build_api()
        async with application.router.lifespan_context(application):
            return await send_all(application, mutated_uploads(num_uploads, seed=seed))

    tally = asyncio.run(main())
    tally.num_crashes += deaths.num_deaths
    return tally


def main(settings: UploadFuzz) -> None:
    """Share the uploads among processes and write what became of them."""
    shares = [settings.num_uploads // settings.num_processes] * settings.num_processes
    shares[0] += settings.num_uploads - sum(shares)
    started = time.monotonic()
    total = Tally()
    with multiprocessing.get_context("spawn").Pool(settings.num_processes) as pool:
        given = [(share, settings.seed + index) for index, share in enumerate(shares)]
        for tally in pool.starmap(fuzz_gateway, given):
            total.add(tally)
    seconds = time.monotonic() - started
    row: Row = {
        "uploads": settings.num_uploads,
        "5xx": total.num_5xx,
        "crashes": total.num_crashes,
        "hangs": total.num_hangs,
        "slowest_s": round(total.slowest_s, 3),
        "uploads_per_s": round(settings.num_uploads / seconds, 1),
        "statuses": {str(status): count for status, count in sorted(total.statuses.items())},
    }
    write_result(settings.output, "Does any broken upload crash the gateway, hang it, or get a 5xx?", [row])
    print_table("Mutated uploads", [row])


if __name__ == "__main__":
    main(load_config(UploadFuzz))
