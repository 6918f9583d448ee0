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

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Cancel the block when the deadline passes.

        Raises:
            DeadlineError: the deadline passed.
        """
        try:
            async with asyncio.timeout_at(self._at) as timeout:
                yield
        except TimeoutError as error:
            if timeout.expired():
                raise DeadlineError(self._limit_s) from error
            raise
