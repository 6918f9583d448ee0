"""Lanes of decoding, so that short recordings never wait for long ones.

Nobody knows how long a recording is before it is decoded. Each begins in the first lane, where only its first seconds
are decoded; what is longer begins again in the second one, for a minute, and at last in that of long recordings, whose
process yields the processor to everything else.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from serve.decoding.memory import DecodedAudio, DecodedBudget
from serve.decoding.process import Decoder, DecoderProcess
from serve.decoding.worker import Job
from serve.settings import Limits
from sottovoce.recognize.longform.recording import Recording

_NUM_OTHERS = 1  # decoders of each lane but the first: one decodes faster than all transcribers transcribe
_NICENESS = 10  # of threads for long recordings; below that of their decoders, as they hold Python's lock at times
_FIRST_S = 10.0  # decoded in the first lane, which most requests never leave
_FIRST_BYTES = 8 * 2**20  # decoded there at most, over all channels: four at 48 kHz
_SHORT_BYTES = 64 * 2**20  # decoded in the second lane at most: a minute of six channels at 48 kHz
_EXPECTED_SHARE = 1.1  # of the estimated duration is reserved: bit rates vary


@dataclass(frozen=True)
class Decoded:
    """A decoded recording."""

    recording: Recording
    """16-bit PCM; empty once the block that holds it is left."""
    is_long: bool
    threads: ThreadPoolExecutor
    """Where its windows are chosen."""


class Decoders:
    """All lanes of one gateway replica."""

    def __init__(self, limits: Limits) -> None:
        """Start nothing yet.

        Args:
            limits: of the service.
        """
        self._max_duration_s = limits.max_duration_s
        self._budget = DecodedBudget(limits.max_decoded_bytes)
        self._stages = _plan_stages(limits)
        self._short_threads = ThreadPoolExecutor(limits.num_decoders, thread_name_prefix="windows-short")
        self._long_threads = ThreadPoolExecutor(_NUM_OTHERS, thread_name_prefix="windows-long", initializer=_yield_cpu)

    def start(self) -> None:
        """Start the decoders of the first lane; those of the others start with the first recording in them."""
        self._stages[0].lane.start()

    @property
    def num_bytes(self) -> int:
        """Bytes of decoded audio that are reserved now."""
        return self._budget.num_bytes

    @asynccontextmanager
    async def decoded(self, file: BinaryIO) -> AsyncIterator[Decoded]:
        """Decode a recording, and hold it until the block is left.

        Raises:
            AudioError: it cannot be used.
            DecodedAudioError: the gateway holds as much as it may.
        """
        audio: DecodedAudio | None = None
        recording: Recording | None = None
        expected_s = 0.0
        try:
            for stage in self._stages:
                if audio is not None:
                    audio.release()
                reserved_s = min(_EXPECTED_SHARE * expected_s, self._max_duration_s) if stage.is_long else 0.0
                audio = DecodedAudio(self._budget, is_long=stage.is_long, expected_s=reserved_s)
                longer_s = await stage.lane.decode(file, stage.job, audio)
                if longer_s is None:
                    break
                expected_s = longer_s
            assert audio is not None
            recording = Recording(audio.samples())
            threads = self._long_threads if stage.is_long else self._short_threads
            yield Decoded(recording, is_long=stage.is_long, threads=threads)
        finally:
            if recording is not None:
                recording.release()
            if audio is not None:
                audio.release()

    def close(self) -> None:
        """End all processes and threads."""
        for stage in self._stages:
            stage.lane.close()
        for threads in (self._short_threads, self._long_threads):
            threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Stage:
    """A lane, and how much of a recording it decodes."""

    lane: "Lane"
    job: Job
    is_long: bool = False


def _plan_stages(limits: Limits) -> list[_Stage]:
    """Return the lanes in the order in which a recording passes through them."""
    make = partial(DecoderProcess, silence_s=limits.max_decode_s)
    whole = Job(max_duration_s=limits.max_duration_s, max_cpu_s=limits.max_decode_s)
    first = replace(whole, first_s=min(_FIRST_S, limits.short_audio_s), first_decoded_bytes=_FIRST_BYTES)
    stages = [_Stage(Lane(limits.num_decoders, partial(make, yields=False), name="first", kills=False), first)]
    if limits.short_audio_s > _FIRST_S:
        short = replace(whole, first_s=limits.short_audio_s, first_decoded_bytes=_SHORT_BYTES)
        stages.append(_Stage(Lane(_NUM_OTHERS, partial(make, yields=False), name="short", kills=False), short))
    long = Lane(_NUM_OTHERS, partial(make, yields=True), name="long", kills=True)
    return [*stages, _Stage(long, whole, is_long=True)]


class Lane:
    """Threads that own a decoder each, and decode recordings in the order of their arrival."""

    def __init__(self, num_decoders: int, make: Callable[[], Decoder], *, name: str, kills: bool) -> None:
        """Start nothing yet.

        Args:
            num_decoders: recordings decoded at a time.
            make: makes a decoder.
            name: of the threads.
            kills: whether a decoder whose request has ended is killed. Otherwise it goes on to its end, which is soon;
                a new process takes longer.
        """
        self._num_decoders = num_decoders
        self._make = make
        self._kills = kills
        self._own = threading.local()
        self._all_threads = threading.Barrier(num_decoders)
        self._decoders: list[Decoder] = []
        self._threads = ThreadPoolExecutor(num_decoders, thread_name_prefix=f"decode-{name}")

    def start(self) -> None:
        """Start every decoder, without waiting for them."""
        for _ in range(self._num_decoders):
            self._threads.submit(self._begin)

    async def decode(self, file: BinaryIO, job: Job, audio: DecodedAudio) -> float | None:
        """Wait for a decoder, and decode. If the caller is cancelled, so is the decoding.

        Raises:
            AudioError, OverloadedError: see ``Decoder.decode``.
        """
        running = _Running()
        work = partial(self._decode, file, job, audio, running)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except asyncio.CancelledError:
            if self._kills:
                running.cancel()
            raise

    def close(self) -> None:
        """End every decoder, and wait for its thread."""
        self._all_threads.abort()
        for decoder in self._decoders:
            decoder.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()

    def _begin(self) -> None:
        self._all_threads.wait()  # else one thread could begin twice, and another one later
        self._own_decoder().start()

    def _decode(self, file: BinaryIO, job: Job, audio: DecodedAudio, running: "_Running") -> float | None:
        file.seek(0)
        data = file.read()  # here, so that only what is being decoded is in memory
        decoder = self._own_decoder()
        with running.using(decoder):
            return decoder.decode(data, job, audio)

    def _own_decoder(self) -> Decoder:
        """Return the decoder of this thread."""
        if not hasattr(self._own, "decoder"):
            self._own.decoder = self._make()
            self._decoders.append(self._own.decoder)
        decoder: Decoder = self._own.decoder
        return decoder


class _Running:
    """The decoder that works for one request, as long as it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoder: Decoder | None = None
        self._is_cancelled = False

    @contextmanager
    def using(self, decoder: Decoder) -> Iterator[None]:
        """Let ``cancel`` stop the decoder until the block is left."""
        with self._lock:
            if self._is_cancelled:
                raise CancelledError
            self._decoder = decoder
        try:
            yield
        finally:
            with self._lock:
                self._decoder = None

    def cancel(self) -> None:
        """Stop the decoder if it still works for this request, or when it begins to."""
        with self._lock:
            self._is_cancelled = True
            if self._decoder is not None:
                self._decoder.kill()


def _yield_cpu() -> None:
    """Let this thread yield the processor to others, where a thread can have a priority of its own."""
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), own + _NICENESS)
