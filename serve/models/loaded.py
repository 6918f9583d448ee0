"""The models in a replica's memory: loaded on demand through Serve's multiplexing, unloaded by least recent use.

Serve's ``max_num_models_per_replica`` is a count, our budget is bytes. So Serve gets no count, and we unload the oldest
model through Serve's own list before a new one is loaded. Serve therefore routes requests by what is really loaded.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from serve.errors import ModelLoadError, ModelNotFoundError
from serve.models.loading import Footprint, LoadedModel, ModelLoader, count_bytes
from serve.models.model_plan import ModelPlan
from serve.models.repository import ModelRepository
from sottovoce.errors import SottovoceError
from sottovoce.model.variants import RunDevice

_LIMITS: Mapping[RunDevice, str] = {"cpu": "max_model_bytes", "cuda": "max_gpu_bytes"}
_log = logging.getLogger(__name__)

Pause: TypeAlias = AbstractAsyncContextManager[object]
"""A context in which nothing is being decoded; ``Engine`` is one."""


class LoadedList(Protocol):
    """Serve's list of a replica's models, the least recently used first."""

    models: "OrderedDict[str, LoadedModel]"
    _push_multiplexed_replica_info: bool
    """Whether to report the list to Serve's controller; Ray 2.60 sets it when it unloads a model by count."""

    async def unload_model_lru(self) -> None:
        """Unload the first."""


class ModelRoom:
    """Load models within a memory budget; one at a time, as Serve calls it."""

    def __init__(self, repository: ModelRepository, loader: ModelLoader, *, max_bytes: Mapping[RunDevice, int]) -> None:
        """Prepare.

        Args:
            repository: the model repository.
            loader: loads the models.
            max_bytes: memory of each device for all models on it, as computed from their files' sizes.
        """
        self._repository = repository
        self._loader = loader
        self._max_bytes = max_bytes

    async def load(self, key: str, loaded: LoadedList, engine: Pause) -> LoadedModel:
        """Load the model of a key, and unload older ones first if there is no room.

        Args:
            key: of the model.
            loaded: the models in memory now.
            engine: entered while nothing is being decoded; a model is not unloaded while it is in use.

        Raises:
            ModelNotFoundError: its name is not served any more.
            ModelLoadError: its files are damaged, or it exceeds the whole budget.
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
        limit = self._max_bytes[footprint.device]
        if footprint.total_bytes > limit:
            needs = f"it needs {footprint.total_bytes} bytes, and {_LIMITS[footprint.device]} is {limit}"
            raise ModelLoadError(key, needs)
        return plan, footprint

    async def unload(self, key: str, *, loaded: LoadedList, engine: Pause) -> None:
        """Unload one model and return its memory to the system. Does nothing if it is not loaded any more.

        Args:
            key: of the model.
            loaded: the models in memory now.
            engine: entered while nothing is being decoded; a model is not unloaded while it is in use.
        """
        async with engine:
            if key not in loaded.models:
                return
            await self._take_out(key, loaded)
        await asyncio.to_thread(self._loader.free_memory)

    async def _make_room(self, key: str, footprint: Footprint, loaded: LoadedList, engine: Pause) -> None:
        while rivals := _on_device(loaded, footprint.device):
            held = count_bytes([*(model.footprint for model in rivals.values()), footprint])
            if held <= self._max_bytes[footprint.device]:
                return
            async with engine:
                oldest = next(iter(_on_device(loaded, footprint.device)))
                await self._take_out(oldest, loaded)
            await asyncio.to_thread(self._loader.free_memory)
            _log.info("%s was unloaded to make room for %s", oldest, key)

    async def _take_out(self, key: str, loaded: LoadedList) -> None:
        """Take a model out of Serve's list. The caller holds the engine, and no reference to the model."""
        model = loaded.models[key]
        loaded.models.move_to_end(key, last=False)  # Serve unloads the first of its list
        await loaded.unload_model_lru()
        loaded._push_multiplexed_replica_info = True  # otherwise requests for it would still be routed here first
        await asyncio.to_thread(self._loader.unload, model)


def _on_device(loaded: LoadedList, device: RunDevice) -> dict[str, LoadedModel]:
    """Return the models in a device's memory, the least recently used first."""
    return {key: model for key, model in loaded.models.items() if model.footprint.device == device}
