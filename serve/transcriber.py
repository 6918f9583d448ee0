"""The transcriber replica: decode windows of all requests, batched by model."""

import asyncio
from typing import cast

from ray import serve as ray_serve
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from serve.engine import Engine, Window
from serve.models.loaded import LoadedList, ModelRoom
from serve.models.loading import LoadedModel, ModelLoader
from serve.models.repository import ModelRepository
from serve.models.served_model import ServedModel
from serve.replica_log import join_replica_log
from sottovoce.errors import ConfigError
from sottovoce.schema import DecodeOptions, Pcm, WindowResult

_NO_COUNT = -1  # Serve's word for any number of models: bytes decide, see serve/models/loaded.py
_SERVES_LIST = "__serve_multiplex_wrapper"  # where Ray 2.60 keeps a replica's list of models


class HungEngineError(RuntimeError):
    """A call of the engine that does not come back; Serve then replaces the replica."""


class Transcriber:
    """Holds the models that are asked for. Plain: ``app.py`` makes a deployment of it."""

    async def __init__(  # type: ignore[misc] # Serve awaits it, and our models are loaded by coroutines
        self,
        repository: ModelRepository,
        *,
        num_threads: int,
        max_model_bytes: int,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        max_batch_s: float,
    ) -> None:
        """Load the default model and warm it up, so that a ready replica answers at full speed.

        Args:
            repository: the model repository.
            num_threads: engine threads.
            max_model_bytes: memory for models, in bytes.
            max_batch_size: windows in one engine call.
            batch_wait_timeout_s: longest wait for a batch to fill.
            max_batch_s: seconds after which a running call makes the replica unhealthy.

        Raises:
            ConfigError: there is no default model.
            ModelLoadError: it cannot be loaded.
        """
        join_replica_log()
        self._engine = Engine()
        self._room = ModelRoom(repository, ModelLoader(num_threads=num_threads), max_bytes=max_model_bytes)
        self._max_batch_s = max_batch_s
        self._recognize_batch.set_max_batch_size(max_batch_size)  # type: ignore[attr-defined]
        self._recognize_batch.set_batch_wait_timeout_s(batch_wait_timeout_s)  # type: ignore[attr-defined]
        await self.prepare(_default_key(repository))

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
        await self._load(
            ray_serve.get_multiplexed_model_id()
        )  # outside the batch, so that other windows do not wait for it
        outcome: WindowResult | Exception = await self._recognize_batch(Window(pcm, options))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

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
        recognizer = model.recognizer
        return ServedModel(
            min_window_s=recognizer.context.min_s,
            max_window_s=recognizer.context.max_s,
            language_names={code: LANGUAGES.get(code, code) for code in recognizer.languages},
            key=key,
        )

    def check_health(self) -> None:
        """Check the engine; Serve calls this every few seconds.

        Raises:
            HungEngineError: one call has run longer than any request may take.
        """
        if self._engine.running_s() > self._max_batch_s:
            raise HungEngineError(f"one engine call has run for more than {self._max_batch_s:g} s")

    @ray_serve.batch  # type: ignore[untyped-decorator,unused-ignore]
    async def _recognize_batch(self, windows: list[Window]) -> list[WindowResult | Exception]:
        """Decode a batch of windows of one model; Serve splits batches by model before."""
        key = ray_serve.get_multiplexed_model_id()
        while True:
            model = await self._load(key)
            async with self._engine.lock:
                if self._loaded.models.get(key) is model:  # otherwise it was unloaded while others computed
                    return await self._engine.recognize(model.recognizer, windows)
            del model  # unloaded to make room: this reference would keep it in memory while it is loaded again

    async def _load(self, key: str) -> LoadedModel:
        """Load a model. A cancelled caller does not stop it for the others."""
        model: LoadedModel = await asyncio.shield(asyncio.ensure_future(self._load_here(key)))
        return model

    @ray_serve.multiplexed(max_num_models_per_replica=_NO_COUNT)  # type: ignore[untyped-decorator,unused-ignore]
    async def _load_here(self, key: str) -> LoadedModel:
        return await self._room.load(key, self._loaded, self._engine.lock)

    @property
    def _loaded(self) -> LoadedList:
        return cast(LoadedList, getattr(self, _SERVES_LIST))


def _default_key(repository: ModelRepository) -> str:
    """Return the default model's key.

    Raises:
        ConfigError: there is no such model, or only variants that the export gate refused.
    """
    entry = repository.read().get(repository.default)
    plan = None if entry is None else entry.plan(None)
    if plan is None:
        reason = "it is neither promoted nor in the settings" if entry is None else entry.refused[entry.default]
        raise ConfigError(
            f"the default model {repository.default!r} cannot be served from {repository.models_folder}: {reason}; "
            "promote one with python -m jobs.promote_model, or name its files in the settings"
        )
    return plan.key
