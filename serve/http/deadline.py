"""One time by which a request must be answered, held over all the pieces of work it is made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.errors import DeadlineError


class Deadline:
    """Begins with the request; a stream is bound to it as well, though other tasks send it."""

    def __init__(self, limit_s: float) -> None:
        """Begin now.

        Args:
            limit_s: seconds from now; see ``Limits.deadline_s``.
        """
        self._limit_s = limit_s
        self._at = asyncio.get_running_loop().time() + limit_s

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Cancel what runs inside when the time has come.

        Raises:
            DeadlineError: it has.
        """
        try:
            async with asyncio.timeout_at(self._at) as timeout:
                yield
        except TimeoutError as error:
            if timeout.expired():
                raise DeadlineError(self._limit_s) from error
            raise
