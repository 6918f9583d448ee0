"""Transcribe a decoded recording into timed segments, each yielded as soon as it is complete."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment, Transcript
from sottovoce.recognize.longform.window import UNHEARD_LANGUAGE, Reader, WindowRequest
from sottovoce.schema import DecodeOptions, Pcm, WindowResult

SendWindow: TypeAlias = Callable[[Pcm, DecodeOptions], Awaitable[WindowResult]]
"""Decode one window on some replica; cancelled when its caller is."""


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
        self.has_text = False
        """Whether a segment so far has text."""
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
        done: set[asyncio.Future[Any]] = set()
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
                ready = deque(one for one in windows if one in done)
                while ready:
                    self.num_windows, is_dry = self.num_windows + 1, False
                    for segment in self._reader.take(windows.pop(ready[0]), _take_result(ready.popleft())):
                        self.has_text = self.has_text or bool(segment.text.strip())
                        yield segment
        finally:
            # A failed window holds its error, whose traceback refers to this frame: what stays here would stay a cycle.
            left: list[asyncio.Future[Any]] = [*windows, *([] if asked is None else [asked])]
            asked = None
            windows.clear()
            done.clear()
            await _cancel_all(left)
            left.clear()

    async def _decode(self, request: WindowRequest) -> WindowResult:
        # A copy: whoever still holds a window when the request has ended does not hold the whole recording.
        return await self._send(self._recording.pcm(request.start, request.end).copy(), request.options)


def _take_result(window: asyncio.Future[WindowResult]) -> WindowResult:
    """Return a window's result, or raise its error without a reference to it in the traceback."""
    try:
        return window.result()
    finally:
        del window


async def _first_of(
    windows: Collection[asyncio.Future[WindowResult]], asked: asyncio.Future[WindowRequest | None] | None
) -> set[asyncio.Future[Any]]:
    """Wait until one of them is done, and return those that are."""
    waited: list[asyncio.Future[Any]] = [*windows, *([] if asked is None else [asked])]
    done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _cancel_all(left: Collection[asyncio.Future[Any]]) -> None:
    """Cancel everything in flight and wait until it is cancelled."""
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)
