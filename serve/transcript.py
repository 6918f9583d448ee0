"""From a recording's bytes to timed segments, given out as soon as they are known."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from serve.models.served_model import ServedModel
from serve.settings import Limits
from sottovoce.audio.decode import decode_pcm
from sottovoce.recognize.longform.algorithms import build_reader
from sottovoce.recognize.longform.options import LongFormOptions
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment, Transcript
from sottovoce.recognize.longform.window import UNHEARD_LANGUAGE, Reader, WindowRequest
from sottovoce.schema import DecodeOptions, Pcm, WindowResult

SendWindow: TypeAlias = Callable[[Pcm, DecodeOptions], Awaitable[WindowResult]]
"""Decode one window somewhere; given up where nobody waits for it any more."""

_SOURCE = "the uploaded file"  # never the client's own name for it, which would end in logs


async def transcribe_recording(
    data: bytes,
    *,
    send: SendWindow,
    options: DecodeOptions,
    long_form: LongFormOptions,
    served: ServedModel,
    limits: Limits,
    decoders: ThreadPoolExecutor,
) -> "Transcription":
    """Decode a recording and prepare to transcribe it.

    Args:
        data: bytes of any container that can be decoded.
        send: decodes one window.
        options: of every window.
        long_form: how a recording longer than one window is cut.
        served: the model.
        limits: on decoded audio, and on windows that wait or run at a time.
        decoders: threads for what would hold the event loop for as long as it takes.

    Raises:
        AudioError: audio that cannot be used.
    """
    loop = asyncio.get_running_loop()
    recording = await loop.run_in_executor(decoders, _decode, data, limits.max_duration_s)
    reader = build_reader(
        recording, options, long_form, min_window_s=served.min_window_s, max_window_s=served.max_window_s
    )
    return Transcription(recording, reader, send=send, max_in_flight=limits.max_windows_in_flight, threads=decoders)


class Transcription:
    """A recording that is being transcribed; its segments can be read once."""

    def __init__(
        self, recording: Recording, reader: Reader, *, send: SendWindow, max_in_flight: int, threads: ThreadPoolExecutor
    ) -> None:
        """Start nothing yet.

        Args:
            recording: what is heard.
            reader: which windows to decode, and what they say together.
            send: decodes one window.
            max_in_flight: windows that wait or run at a time.
            threads: where windows are found: looking for speech takes a while.
        """
        self.duration_s = recording.duration_s
        self.num_windows = 0
        """Decoded so far."""
        self._recording = recording
        self._reader = reader
        self._send = send
        self._max_in_flight = max_in_flight
        self._threads = threads

    @property
    def language(self) -> str:
        """ISO 639-1: the one asked for, or the one detected once a segment is known."""
        return self._reader.language or UNHEARD_LANGUAGE

    async def transcript(self) -> Transcript:
        """Wait for all segments; errors as there."""
        segments = tuple([segment async for segment in self.segments()])
        return Transcript(duration_s=self.duration_s, language=self.language, segments=segments)

    async def segments(self) -> AsyncGenerator[Segment, None]:
        """Give segments in order, each as soon as it is known.

        What is in flight is given up when the caller stops reading, is cancelled, or when a window fails.

        Raises:
            SottovoceError: what ``send`` raises.
        """
        windows: dict[asyncio.Future[WindowResult], WindowRequest] = {}
        asked: asyncio.Future[WindowRequest | None] | None = None
        asked_at = -1  # windows decoded when the next one was asked for: None counts until another is
        is_dry = False
        try:
            while True:
                if asked is None and not is_dry and len(windows) < self._max_in_flight:
                    asked_at = self.num_windows
                    asked = asyncio.get_running_loop().run_in_executor(self._threads, self._reader.next_window)
                if asked is None and not windows:
                    return
                done = await _first_of(windows, asked)
                if asked is not None and asked in done:
                    request, asked = asked.result(), None
                    is_dry = request is None and asked_at == self.num_windows
                    if request is not None:
                        windows[asyncio.ensure_future(self._decode(request))] = request
                for window in [one for one in windows if one in done]:
                    self.num_windows, is_dry = self.num_windows + 1, False
                    for segment in self._reader.take(windows.pop(window), window.result()):
                        yield segment
        finally:
            await _give_up(windows, asked)

    async def _decode(self, request: WindowRequest) -> WindowResult:
        return await self._send(self._recording.pcm(request.start, request.end), request.options)


def _decode(data: bytes, max_duration_s: float) -> Recording:
    return Recording(decode_pcm(data, source=_SOURCE, max_duration_s=max_duration_s))


async def _first_of(
    windows: Collection[asyncio.Future[WindowResult]], asked: asyncio.Future[WindowRequest | None] | None
) -> set[asyncio.Future[Any]]:
    """Wait until one is done."""
    waited: list[asyncio.Future[Any]] = [*windows, *([] if asked is None else [asked])]
    done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _give_up(
    windows: Collection[asyncio.Future[WindowResult]], asked: asyncio.Future[WindowRequest | None] | None
) -> None:
    """Cancel what is in flight, and wait until it has been told."""
    left: list[asyncio.Future[Any]] = [*windows, *([] if asked is None else [asked])]
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)
