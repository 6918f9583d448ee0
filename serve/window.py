"""A window on its way through a replica."""

import asyncio
import time
from dataclasses import dataclass, field

from sottovoce.schema import DecodeOptions, Pcm, WindowResult


@dataclass(frozen=True)
class Window:
    """One window and how to decode it."""

    pcm: Pcm
    options: DecodeOptions
    arrived: float = field(default_factory=time.monotonic)
    """When it came to the replica, by the monotonic clock."""


class PendingWindow:
    """A window whose result somebody waits for. To be used in the event loop."""

    def __init__(self, key: str, window: Window) -> None:
        """Prepare; ``key`` is the model's."""
        self.key = key
        self.window = window
        self._future: asyncio.Future[WindowResult | None] = asyncio.get_running_loop().create_future()

    @property
    def is_settled(self) -> bool:
        """Whether it has its result or its error, or nobody waits any more."""
        return self._future.done()

    def settle(self, outcome: WindowResult | Exception | None) -> None:
        """End the waiting, unless it has ended; None means that the model was unloaded."""
        if self._future.done():
            return
        if isinstance(outcome, Exception):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)

    async def result(self) -> WindowResult | None:
        """Wait for the result. If the caller is cancelled, so is the window."""
        return await self._future
