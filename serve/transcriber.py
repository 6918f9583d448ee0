"""The transcriber replica: decode windows of all requests, batched by model."""

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from ray import serve as ray_serve

from serve.engine import Engine
from serve.models.loaded import LoadedList, ModelRoom
from serve.models.loading import LoadedModel, ModelLoader
from serve.models.repository import ModelRepository
from serve.models.served_model import ServedModel
from serve.models.superseded import SupersededReleases
from serve.observe.engine_metrics import LoadedModelMetrics
from serve.replica_log import join_replica_log
from serve.window import Window
from sottovoce.model.variants import RunDevice
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import DecodeOptions, Pcm, WindowResult
from sottovoce.text.languages import LANGUAGES

_NO_COUNT = -1  # Serve's word for any number of models: bytes decide, see serve/models/loaded.py
_SERVES_LIST = "__serve_multiplex_wrapper"  # where Ray 2.60 keeps a replica's list of models


class HungEngineError(RuntimeError):
    """A step of the engine that does not come back; Serve then replaces the replica."""


class Transcriber:
    """Holds the models that are asked for. Plain: ``app.py`` makes a deployment of it."""

    async def __init__(  # type: ignore[misc] # Serve awaits it, and our models are loaded by coroutines
        self,
        repository: ModelRepository,
        *,
        make_loader: Callable[[], ModelLoader],
        max_bytes: Mapping[RunDevice, int],
        max_batch_size: int,
        batch_wait_timeout_s: float,
        max_step_s: float,
    ) -> None:
        """Load the default model and warm it up, so that a ready replica answers at full speed.

        Args:
            repository: the model repository.
            make_loader: makes the loader of this replica's device. Serve pickles the arguments again once the replica
                runs, and a loader that has loaded something cannot be pickled.
            max_bytes: memory of each device for models, in bytes.
            max_batch_size: windows that begin together.
            batch_wait_timeout_s: longest wait for a batch to fill.
            max_step_s: seconds after which a running step of the engine makes the replica unhealthy.

        Raises:
            ConfigError: there is no default model.
            ModelLoadError: it cannot be loaded.
        """
        join_replica_log()
        self._engine = Engine(self._find, max_batch_size=max_batch_size, batch_wait_timeout_s=batch_wait_timeout_s)
        self._room = ModelRoom(repository, make_loader(), max_bytes=max_bytes)
        self._superseded = SupersededReleases(repository, loaded=lambda: self._loaded.models, unload=self._unload)
        self._max_step_s = max_step_s
        self._model_metrics = LoadedModelMetrics(max_bytes=max_bytes)
        await self.prepare(repository.default_plan().key)

    async def transcribe(self, pcm: Pcm, options: DecodeOptions) -> WindowResult:
        """Decode one window, batched with others that wait for the same model.

        Args:
            pcm: (S,) int16, 16 000 Hz, at most the model's context long.
            options: decoding options of this window.

        Raises:
            ContextError: the window is longer than the context.
            LanguageError: the model does not know the language.
            ModelNotFoundError, ModelLoadError: see ``prepare``.
        """
        key, window = ray_serve.get_multiplexed_model_id(), Window(pcm, options)
        while True:
            await self._load(key)
            result = await self._engine.decode(key, window)
            if result is not None:  # otherwise the model was unloaded while others computed
                return result

    async def describe(self) -> ServedModel:
        """Load the call's model and describe it. Raises as ``prepare``."""
        return await self.prepare(ray_serve.get_multiplexed_model_id())

    async def prepare(self, key: str) -> ServedModel:
        """Load a model if necessary, and describe it.

        Raises:
            ModelNotFoundError: its name is not served any more.
            ModelLoadError: its files are damaged, or it exceeds the memory budget.
        """
        model = await self._load(key)
        self._superseded.look()
        recognizer = model.recognizer
        return ServedModel(
            min_window_s=recognizer.context.min_s,
            max_window_s=recognizer.context.max_s,
            language_names={code: LANGUAGES.get(code, code) for code in recognizer.languages},
            key=key,
            files=model.files,
        )

    def check_health(self) -> None:
        """Check the engine, and show the models in memory; Serve calls this every few seconds.

        Raises:
            HungEngineError: one step has run longer than any request may take.
        """
        self._model_metrics.show(self._loaded.models.values())
        if self._engine.running_s() > self._max_step_s:
            raise HungEngineError(f"a step of the engine has run for more than {self._max_step_s:g} s")

    def _find(self, key: str) -> Recognizer | None:
        model = self._loaded.models.get(key)
        return None if model is None else model.recognizer

    async def _load(self, key: str) -> LoadedModel:
        """Load a model. A cancelled caller does not stop it for the others."""
        self._superseded.note_use(key)
        model: LoadedModel = await asyncio.shield(asyncio.ensure_future(self._load_here(key)))
        return model

    @ray_serve.multiplexed(max_num_models_per_replica=_NO_COUNT)  # type: ignore[untyped-decorator,unused-ignore]
    async def _load_here(self, key: str) -> LoadedModel:
        return await self._room.load(key, self._loaded, self._engine)

    async def _unload(self, key: str) -> None:
        await self._room.unload(key, loaded=self._loaded, engine=self._engine)

    @property
    def _loaded(self) -> LoadedList:
        return cast(LoadedList, getattr(self, _SERVES_LIST))
