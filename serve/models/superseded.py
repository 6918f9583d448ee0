"""Drop superseded releases from a replica's memory once nobody has used them for a while.

A release is superseded when the current release of its name is loaded beside it. Dropping it loses nothing: a request
that began with it before the promotion loads it again, as long as its files are kept.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from serve.models.model_plan import ModelEntry, ModelSource, split_id

_IDLE_S = 30.0  # guess: longer than any pause between two windows of one request

_log = logging.getLogger(__name__)


class SupersededReleases:
    """When each model of a replica was last used, and the task that drops superseded ones."""

    def __init__(
        self,
        source: ModelSource,
        *,
        loaded: Callable[[], Iterable[str]],
        unload: Callable[[str], Awaitable[None]],
        idle_s: float = _IDLE_S,
    ) -> None:
        """Prepare. Nothing runs before ``look``.

        Args:
            source: the model repository.
            loaded: returns the keys of the models in memory now.
            unload: unloads one of them, between two calls of the engine.
            idle_s: seconds without use after which a superseded release is dropped.
        """
        self._source = source
        self._loaded = loaded
        self._unload = unload
        self._idle_s = idle_s
        self._used: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def note_use(self, key: str) -> None:
        """Remember that a model is in use now."""
        self._used[key] = time.monotonic()

    def look(self) -> None:
        """Start to drop superseded releases, unless that runs already or there is one model only."""
        if len([*self._loaded()]) > 1 and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._drop())

    async def _drop(self) -> None:
        """Drop each superseded release once it is idle. Ends when none is left."""
        while superseded := await self._find():
            now = time.monotonic()
            for key in superseded:
                if now - self._used.setdefault(key, now) >= self._idle_s:
                    await self._unload(key)
                    self._used.pop(key, None)
                    _log.info(
                        "%s was unloaded: another release is current, and it was idle for %g s", key, self._idle_s
                    )
            await asyncio.sleep(self._idle_s / 4)

    async def _find(self) -> list[str]:
        """Return the keys of superseded releases in memory; none if the repository cannot be read now."""
        try:
            entries = await asyncio.to_thread(self._source.read)
        except OSError:
            _log.warning("the model repository cannot be read; superseded releases stay in memory", exc_info=True)
            return []
        return [*find_superseded([*self._loaded()], entries)]


def find_superseded(loaded: list[str], entries: Mapping[str, ModelEntry]) -> Iterator[str]:
    """Yield the loaded keys whose successor is loaded, too: the same variant, or the bare name's if there is none."""
    for key in loaded:
        name, variant = split_id(key.rpartition("/")[0])
        entry = entries.get(name)
        if entry is None or not entry.is_readable or key in {plan.key for plan in entry.plans.values()}:
            continue
        successor = entry.plan(variant) or entry.plan(None)
        if successor is not None and successor.key in loaded:
            yield key
