"""Transcribe the bytes of a recording into timed segments, each yielded as soon as it is complete."""

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
"""Decode one window on some replica; cancelled when its caller is."""

_SOURCE = "the uploaded file"  # never the client's file name, which would end up in logs


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
    """Decode the audio of a recording and prepare its transcription.

    Args:
        data: bytes of any container that can be decoded.
        send: decodes one window.
        options: decoding options of every window.
        long_form: how a recording longer than one window is split.
        served: the model.
        limits: on decoded audio, and on windows in flight.
        decoders: threads for blocking work, which would block the event loop.

    Raises:
        AudioError: the audio cannot be decoded.
    """
    loop = asyncio.get_running_loop()
    recording = await loop.run_in_executor(decoders, _decode, data, limits.max_duration_s)
    reader = build_reader(
        recording, options, long_form, min_window_s=served.min_window_s, max_window_s=served.max_window_s
    )
    return Transcription(recording, reader, send=send, max_in_flight=limits.max_windows_in_flight, threads=decoders)


class Transcription:
    """A transcription in progress; its segments can be read once."""

    def __init__(
        self, recording: Recording, reader: Reader, *, send: SendWindow, max_in_flight: int, threads: ThreadPoolExecutor
    ) -> None:
        """Prepare; no window is sent yet.

        Args:
            recording: the decoded recording.
            reader: chooses the windows and joins their results.
            send: decodes one window.
            max_in_flight: windows in flight at a time.
            threads: where the reader runs, since speech detection blocks.
        """
        self.duration_s = recording.duration_s
        self.num_windows = 0
        """Windows decoded so far."""
        self._recording = recording
        self._reader = reader
        self._send = send
        self._max_in_flight = max_in_flight
        self._threads = threads

    @property
    def language(self) -> str:
        """ISO 639-1 code: the requested language, or the detected one once a segment is complete."""
        return self._reader.language or UNHEARD_LANGUAGE

    async def transcript(self) -> Transcript:
        """Wait for all segments. Raises as ``segments``."""
        segments = tuple([segment async for segment in self.segments()])
        return Transcript(duration_s=self.duration_s, language=self.language, segments=segments)

    async def segments(self) -> AsyncGenerator[Segment, None]:
        """Yield segments in order, each as soon as it is complete.

        Windows in flight are cancelled when the caller stops reading or is cancelled, and when a window fails.

        Raises:
            SottovoceError: raised by ``send``.
        """
        windows: dict[asyncio.Future[WindowResult], WindowRequest] = {}
        asked: asyncio.Future[WindowRequest | None] | None = None
        asked_at = -1  # windows decoded when the next one was requested: a None stands until another one is decoded
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
            await _cancel_all(windows, asked)

    async def _decode(self, request: WindowRequest) -> WindowResult:
        return await self._send(self._recording.pcm(request.start, request.end), request.options)


def _decode(data: bytes, max_duration_s: float) -> Recording:
    return Recording(decode_pcm(data, source=_SOURCE, max_duration_s=max_duration_s))


async def _first_of(
    windows: Collection[asyncio.Future[WindowResult]], asked: asyncio.Future[WindowRequest | None] | None
) -> set[asyncio.Future[Any]]:
    """Wait until one of them is done, and return those that are."""
    waited: list[asyncio.Future[Any]] = [*windows, *([] if asked is None else [asked])]
    done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _cancel_all(
    windows: Collection[asyncio.Future[WindowResult]], asked: asyncio.Future[WindowRequest | None] | None
) -> None:
    """Cancel everything in flight and wait until it is cancelled."""
    left: list[asyncio.Future[Any]] = [*windows, *([] if asked is None else [asked])]
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)
