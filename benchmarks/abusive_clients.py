"""Clients that abuse a transcription service: hours of audio, bombs, trickling bodies, hang-ups, and a crowd."""

import asyncio
import io
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream

from benchmarks.http_posts import Answer, Connection, post, speech_form
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.schema import SAMPLING_RATE, Waveform

Abuse = Callable[[int, float], Awaitable[Counter[str]]]
"""Abuse the service at a port for so many seconds, and return how often each outcome was seen."""

_MINUTE_S = 60.0
_MAX_BODY_BYTES = 25 * 2**20 - 2**12  # of the file, so that the form stays below the service's limit
_AFTER_LOSS_S = 1.0


def spoken_minute() -> Waveform:
    """Synthesize a minute of sentences: (S,) float32, 16 000 Hz."""
    waveforms = [piece.waveform for piece in speak_timed(20, voices=["en-us"], max_s=9.0, seed=0)]
    spoken = np.concatenate(waveforms)
    return np.tile(spoken, 10)[: round(_MINUTE_S * SAMPLING_RATE)]


def wav(samples: Waveform) -> bytes:
    """Encode (S,) as 16-bit PCM."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def adts(samples: Waveform, *, rate: int, bit_rate: int) -> bytes:
    """Encode (S,) as AAC frames without a container, which may be joined as they are."""
    return encode_av(samples, "adts", "aac", rate=rate, bit_rate=bit_rate)


def encode_av(samples: Waveform, container: str, codec: str, *, rate: int, bit_rate: int | None = None) -> bytes:
    """Encode (S,) with FFmpeg's libraries."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def two_hours() -> bytes:
    """Encode speech for two hours less a minute, in some 20 MB."""
    return adts(spoken_minute(), rate=SAMPLING_RATE, bit_rate=20_000) * 119


def bombs() -> list[bytes]:
    """Make small files that unpack to much more: hours of silence, a forged rate, and a header that lies."""
    silent = adts(np.zeros(96_000 * 10, np.float32), rate=96_000, bit_rate=8_000)
    hours = silent * (_MAX_BODY_BYTES // len(silent))
    wide = io.BytesIO()
    with soundfile.SoundFile(wide, "w", 655_350, 8, "PCM_16", format="FLAC") as file:
        for _ in range(60):
            file.write(np.zeros((655_350, 8), np.int16))
    lying = bytearray(wav(np.zeros(1_000, np.float32)))
    lying[4:8] = lying[40:44] = (0x7FFFFFF0).to_bytes(4, "little")
    return [hours, wide.getvalue(), bytes(lying)]


def many_uploads(bodies: list[bytes], num_clients: int) -> Abuse:
    """Send bodies from so many clients at once; each comes again after a second, or after Retry-After."""

    async def abuse(port: int, seconds: float) -> Counter[str]:
        outcomes: Counter[str] = Counter()

        async def client(index: int) -> None:
            while True:
                outcome, wait_s = await _outcome(post(port, bodies[index % len(bodies)]))
                outcomes[outcome] += 1
                await asyncio.sleep(wait_s)

        await _run_for(seconds, [client(index) for index in range(num_clients)])
        return outcomes

    return abuse


def slow_bodies(num_clients: int) -> Abuse:
    """Open so many requests within a second, and send a byte of each body every second until it is ended."""

    async def abuse(port: int, seconds: float) -> Counter[str]:
        outcomes: Counter[str] = Counter()

        async def client() -> None:
            await asyncio.sleep(random.random())
            outcome, _ = await _outcome(_trickle(port))
            outcomes[outcome] += 1

        await _run_for(seconds, [client() for _ in range(num_clients)])
        return outcomes

    return abuse


async def _trickle(port: int) -> Answer:
    begun = speech_form(b"").rpartition(b"\r\n--")[0]
    async with Connection(port) as connection:
        await connection.send_head(1_000_000)
        await connection.send(begun)
        answering = asyncio.create_task(connection.answer())
        try:
            while not answering.done():
                with suppress(ConnectionError):
                    await connection.send(b"\0")
                await asyncio.wait([answering], timeout=1.0)
            return answering.result()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


def hang_ups(body: bytes, num_clients: int) -> Abuse:
    """Let so many clients leave: a third in the middle of the body, the others while they wait for the answer."""

    async def abuse(port: int, seconds: float) -> Counter[str]:
        outcomes: Counter[str] = Counter()

        async def client(index: int) -> None:
            await asyncio.sleep(seconds * index / num_clients)
            leaves_early = index % 3 == 0
            with suppress(OSError):
                async with Connection(port) as connection:
                    await connection.send_head(len(body))
                    await connection.send(body[: len(body) // 2] if leaves_early else body)
                    await asyncio.sleep(0.0 if leaves_early else 0.02 * (index % 5))
            outcomes["left"] += 1

        await asyncio.gather(*(client(index) for index in range(num_clients)))
        return outcomes

    return abuse


async def crowd(port: int, body: bytes, *, num_clients: int, seconds: float) -> list[Answer | None]:
    """Let so many clients ask again and again; one that gets 503 comes again after Retry-After.

    Returns:
        The answers; None for a connection that was lost.
    """
    answers: list[Answer | None] = []

    async def client() -> None:
        end = monotonic() + seconds
        while monotonic() < end:
            try:
                answer = await post(port, body)
            except OSError:
                answers.append(None)
                await asyncio.sleep(_AFTER_LOSS_S)
                continue
            answers.append(answer)
            if answer.status != 200:
                await asyncio.sleep(float(answer.headers.get("retry-after", "1")))

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return answers


async def _run_for(seconds: float, clients: list[Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(client) for client in clients]
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _outcome(answering: Awaitable[Answer]) -> tuple[str, float]:
    """Return what became of a request, and the seconds after which its client comes again."""
    try:
        answer = await answering
    except OSError:
        return "connection lost", _AFTER_LOSS_S
    return str(answer.status), float(answer.headers.get("retry-after", _AFTER_LOSS_S))


def abuses(spoken: bytes) -> Mapping[str, Abuse]:
    """Return all abuses by name."""
    form = speech_form
    return {
        "12 uploads of 2 h": many_uploads([form(two_hours())], 12),
        "64 bombs": many_uploads([form(bomb) for bomb in bombs()], 64),
        "700 slow bodies": slow_bodies(700),
        "300 disconnects": hang_ups(form(spoken), 300),
    }
