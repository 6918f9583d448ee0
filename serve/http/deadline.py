"""The deadline of a request, shared by all its pieces of work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.errors import DeadlineError


class Deadline:
    """A deadline that starts with the request and also bounds its stream, which other tasks send."""

    def __init__(self, limit_s: float) -> None:
        """Start now.

        Args:
            limit_s: seconds from now; see ``Limits.deadline_s``.
        """
        self._limit_s = limit_s
        self._at = asyncio.get_running_loop().time() + limit_s
        self._timeout: asyncio.Timeout | None = None

    def extend(self, more_s: float) -> None:
        """Move the deadline, since long audio takes longer; see ``Limits.deadline_per_audio_s``."""
        self._limit_s += more_s
        self._at += more_s
        if self._timeout is not None:
            self._timeout.reschedule(self._at)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Cancel the block when the deadline passes.

        Raises:
            DeadlineError: the deadline passed.
        """
        try:
            async with asyncio.timeout_at(self._at) as self._timeout:
                yield
        except TimeoutError as error:
            if self._timeout is not None and self._timeout.expired():
                raise DeadlineError(self._limit_s) from error
            raise
        finally:
            # It refers to its task, the task keeps the error it was cancelled with, and the error's traceback refers to
            # this frame: a cycle, which would keep the recording of a client that has left.
            self._timeout = None
