"""The engine replica's handling of a model that is dropped while its batch waits."""

import asyncio
import gc
import weakref
from types import SimpleNamespace

import numpy as np

from serve.engine import Engine, Window
from serve.models.loading import Footprint, LoadedModel
from serve.models.model_plan import ModelPlan
from serve.transcriber import Transcriber
from sottovoce.schema import DecodeOptions, WindowResult


class OneWindow:
    """Recognizes nothing, and says so."""

    def recognize(self, windows, options):
        return [WindowResult(text="", token_ids=(), language="en", avg_logprob=0.0, no_speech_prob=0.0)]


class Replica:
    """What a batch needs of a transcriber; its first model is dropped as soon as it is loaded."""

    def __init__(self) -> None:
        self._engine = Engine()
        self._max_batch_size = 8
        self._loaded = SimpleNamespace(models={})
        self.loads: list[weakref.ref[LoadedModel]] = []
        self.num_in_memory: list[int] = []

    async def _load(self, key: str) -> LoadedModel:
        gc.collect()
        self.num_in_memory.append(sum(load() is not None for load in self.loads))
        plan = ModelPlan(key=key, folder="x", variant="torch", created=1)
        model = LoadedModel(plan, OneWindow(), Footprint(1))
        self.loads.append(weakref.ref(model))
        if len(self.loads) > 1:
            self._loaded.models[key] = model
        return model


def test_a_model_that_was_dropped_leaves_memory_before_it_is_loaded_again():
    recognize_batch = Transcriber._recognize_batch.__wrapped__  # Serve's batching around it needs a replica
    replica = Replica()
    windows = [Window(np.zeros(16_000, np.int16), DecodeOptions())]
    (result,) = asyncio.run(recognize_batch(replica, windows))
    assert result.text == ""
    assert replica.num_in_memory == [0, 0]
