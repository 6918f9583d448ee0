"""The models a replica holds: loaded on demand through Serve's multiplexing, dropped by least use above a budget.

Serve's ``max_num_models_per_replica`` is a count; ours are bytes, so Serve is told no count and its own list of models
is asked to let go of the oldest before a new one is loaded. Requests are thereby routed by what is really loaded.
"""

import asyncio
import logging
from collections import OrderedDict
from typing import Protocol

from serve.errors import ModelLoadError, ModelNotFoundError
from serve.models.loading import Footprint, LoadedModel, ModelLoader, count_bytes
from serve.models.model_plan import ModelPlan
from serve.models.repository import ModelRepository
from sottovoce.errors import SottovoceError

_log = logging.getLogger(__name__)


class LoadedList(Protocol):
    """Serve's list of a replica's models: the least recently used first."""

    models: "OrderedDict[str, LoadedModel]"
    _push_multiplexed_replica_info: bool
    """Whether Serve's controller is to be told of the list; Ray 2.60 sets it where it drops a model by count itself."""

    async def unload_model_lru(self) -> None:
        """Drop the first."""


class ModelRoom:
    """Makes room for a model, and loads it; one at a time, as Serve calls it."""

    def __init__(self, repository: ModelRepository, loader: ModelLoader, *, max_bytes: int) -> None:
        """Prepare.

        Args:
            repository: where models are found.
            loader: loads them.
            max_bytes: memory for all loaded models together, as computed from their files' sizes.
        """
        self._repository = repository
        self._loader = loader
        self._max_bytes = max_bytes

    async def load(self, key: str, loaded: LoadedList, engine: asyncio.Lock) -> LoadedModel:
        """Load what a key stands for; older models are dropped first where there is no room.

        Args:
            key: of the model.
            loaded: those in memory now.
            engine: held by whoever computes: a model is not dropped while it is in use.

        Raises:
            ModelNotFoundError: nothing is served under its name any more.
            ModelLoadError: its files are damaged, or it needs more than the whole budget.
        """
        try:
            plan, footprint = await asyncio.to_thread(self._measure, key)
            await self._make_room(key, footprint, loaded, engine)
            return await asyncio.to_thread(self._loader.load, plan, footprint)
        except (ModelNotFoundError, ModelLoadError):
            raise
        except SottovoceError as error:
            _log.exception("%s cannot be loaded", key)
            raise ModelLoadError(key, str(error)) from error

    def _measure(self, key: str) -> tuple[ModelPlan, Footprint]:
        plan = self._repository.plan(key)
        footprint = self._loader.measure(plan)
        if footprint.total_bytes > self._max_bytes:
            needs = f"it takes {footprint.total_bytes} bytes, and max_model_bytes is {self._max_bytes}"
            raise ModelLoadError(key, needs)
        return plan, footprint

    async def _make_room(self, key: str, footprint: Footprint, loaded: LoadedList, engine: asyncio.Lock) -> None:
        while loaded.models and self._count(loaded, footprint) > self._max_bytes:
            async with engine:
                oldest, model = next(iter(loaded.models.items()))
                await loaded.unload_model_lru()
                loaded._push_multiplexed_replica_info = True  # or requests for it would still be sent here first
                await asyncio.to_thread(self._loader.unload, model)
            del model
            await asyncio.to_thread(self._loader.free_memory)
            _log.info("%s is dropped to make room for %s", oldest, key)

    @staticmethod
    def _count(loaded: LoadedList, footprint: Footprint) -> int:
        return count_bytes([*(model.footprint for model in loaded.models.values()), footprint])
