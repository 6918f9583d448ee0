"""How Serve's HTTP proxy meets a crowd: whom it refuses itself, and when those who were refused shall come again.

A gateway's refusal comes after the proxy has passed the request on and a busy gateway has taken its turn: seconds, when
hundreds of clients share the processor. So the proxy passes on little more than the gateways can work on, and nothing
for a moment after a gateway has refused a request for lack of room.
"""

import asyncio
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable

MAX_WORKING_VARIABLE = "SOTTOVOCE_PROXY_MAX_WORKING"
"""Environment variable of the proxies: the requests that it passes on to all gateways together at a time."""
# Refused by the proxy after a gateway's refusal. A gateway has windows for longer than this in its queue, so that the
# transcribers stay busy (guess).
_CROWDED_S = 0.2
_UPLOADING_S = 1.0  # a body that has not arrived by then is a slow upload, which occupies no gateway
_PACE_OVER_S = 10.0  # the rate of answers is that of the last so many seconds
_LEAST_PER_S = 1.0  # where nothing has been answered yet
_LARGE_BYTES = 2**20  # of a body; half a minute of 16-bit speech
_LARGE_BYTES_PER_S = 48 * 2**20  # a third of what 64 such clients sent through two cores
_LONGEST_WAIT_S = 30  # OpenAI's clients wait for up to a minute when they are told to, and then three times at most


def max_working_from_environment() -> int | None:
    """Return what the environment of this proxy says; None for no limit, as under ``serve run``."""
    value = os.environ.get(MAX_WORKING_VARIABLE)
    return None if value is None else int(value)


class Visit:
    """One request that the proxy has passed on. It counts while a gateway may work on it."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._counts = self._is_whole = self._is_over = False
        self._count(True)
        self._timer = asyncio.get_running_loop().call_later(_UPLOADING_S, self._end_of_grace)

    def arrived(self) -> None:
        """Note that its body has arrived; also one that was refused is read to its end."""
        self._is_whole = True
        self._count(not self._is_over)

    def end(self) -> None:
        """Note that it is over."""
        self._timer.cancel()
        self._is_over = True
        self._count(False)

    def _end_of_grace(self) -> None:
        if not self._is_whole:
            self._count(False)

    def _count(self, counts: bool) -> None:
        self._crowd.num_working += counts - self._counts
        self._counts = counts


class LargeBodies:
    """What bodies have beyond their first MiB passes a proxy at 48 MiB/s altogether.

    That is hours of compressed speech a second. It bounds what dozens of large uploads at once leave in the gateways'
    memory: 0.5 GB with it and 0.9 GB without, when 64 clients sent bodies of 25 MB among others.
    """

    def __init__(self, *, bytes_per_s: float = _LARGE_BYTES_PER_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with none."""
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = -math.inf

    async def passing(self, num_bytes: int, *, before: int) -> None:
        """Wait until the next part of a body may pass.

        Args:
            num_bytes: of the part.
            before: bytes of the same body that have passed.
        """
        if before < _LARGE_BYTES:
            return
        starts_at = max(self._free_at, self._clock())
        self._free_at = starts_at + num_bytes / self._bytes_per_s
        await asyncio.sleep(starts_at - self._clock())


class Crowd:
    """The requests with the gateways, and the clients that were refused."""

    def __init__(self, max_working: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nobody.

        Args:
            max_working: requests that may be with the gateways at a time; None for no limit.
            clock: seconds, never back.
        """
        self.num_working = 0
        """Requests that the gateways may be working on."""
        self._max_working = max_working
        self._clock = clock
        self._crowded_until = -math.inf
        self._answered_at: deque[float] = deque()
        self._last_return = -math.inf

    @property
    def is_full(self) -> bool:
        """Whether a gateway would refuse a request for lack of room."""
        is_at_limit = self._max_working is not None and self.num_working >= self._max_working
        return is_at_limit or self._clock() < self._crowded_until

    def note_refusal(self) -> None:
        """Note that a gateway has refused a request for lack of room."""
        self._crowded_until = self._clock() + _CROWDED_S

    def note_answer(self) -> None:
        """Note that a request was answered."""
        self._answered_at.append(self._clock())
        self._forget_answers()

    def retry_after_s(self) -> int:
        """Return the seconds after which a refused client shall come again.

        Clients come back one after the other, as fast as requests are answered: all at once, most would be refused
        again. Those for whom that would be too long come at random times in its second half.
        """
        now = self._clock()
        self._forget_answers()
        per_s = max(len(self._answered_at) / _PACE_OVER_S, _LEAST_PER_S)
        self._last_return = max(self._last_return, now) + 1.0 / per_s
        wait_s = self._last_return - now
        if wait_s > _LONGEST_WAIT_S:
            self._last_return = now + _LONGEST_WAIT_S
            return random.randint(_LONGEST_WAIT_S // 2, _LONGEST_WAIT_S)
        return math.ceil(wait_s)

    def _forget_answers(self) -> None:
        """Drop those that are too old for the rate."""
        while self._answered_at and self._answered_at[0] < self._clock() - _PACE_OVER_S:
            self._answered_at.popleft()
