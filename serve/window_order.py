"""The order in which windows are sent: those of short recordings at once, those of long ones beside them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

_QUIET_S = 5.0  # after a short recording, others are expected to follow for so long
_REST = 3.0  # times as long as a long recording's window took, the next one waits while a short recording is there


class WindowOrder:
    """The windows that one gateway replica has in flight.

    A transcriber begins windows in the order in which they come. With many windows of long recordings in flight, each
    short recording would wait for all of them. With one, it waits for one, and if that one rests afterwards, mostly for
    none: three quarters of the time belong to short recordings while there are any.
    """

    def __init__(self, *, max_beside_short: int) -> None:
        """Start with none.

        Args:
            max_beside_short: windows of long recordings in flight while short ones are transcribed.
        """
        self._max_beside_short = max_beside_short
        self._num_short = 0
        self._quiet_at = 0.0
        self._rested_at = 0.0
        self._num_in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextmanager
    def short(self) -> Iterator[None]:
        """Transcribe a short recording, whose windows need no leave."""
        self._num_short += 1
        try:
            yield
        finally:
            self._num_short -= 1
            loop = asyncio.get_running_loop()
            self._quiet_at = loop.time() + _QUIET_S
            loop.call_at(self._quiet_at, self._wake)
            self._wake()

    @asynccontextmanager
    async def long(self) -> AsyncIterator[None]:
        """Wait for the turn of a window of a long recording, and count it while it is in flight."""
        if self._waiting or not self._has_room():
            await self._wait()
        else:
            self._num_in_flight += 1
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield
        finally:
            self._num_in_flight -= 1
            self._rested_at = loop.time() + _REST * (loop.time() - started)
            loop.call_at(self._rested_at, self._wake)
            self._wake()

    def _has_room(self) -> bool:
        now = asyncio.get_running_loop().time()
        if not self._num_short and now >= self._quiet_at:
            return True
        return self._num_in_flight < self._max_beside_short and (not self._num_short or now >= self._rested_at)

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._num_in_flight -= 1
                self._wake()
            else:
                self._waiting.remove(turn)
            raise

    def _wake(self) -> None:
        """Let windows go, in the order of their arrival."""
        while self._waiting and self._has_room():
            self._num_in_flight += 1
            self._waiting.popleft().set_result(None)
