"""The transcriber's handling of a model that is dropped while a window waits for it."""

import asyncio
from types import SimpleNamespace

import numpy as np
import ray.serve

from serve.transcriber import Transcriber
from sottovoce.schema import DecodeOptions, WindowResult

RESULT = WindowResult(text="", token_ids=(), language="en", avg_logprob=0.0, no_speech_prob=0.0)


class Replica:
    """What a window needs of a transcriber; its first model is dropped as soon as it is loaded."""

    def __init__(self) -> None:
        self._engine = self
        self.calls: list[str] = []

    async def _load(self, key: str) -> None:
        self.calls.append(f"load {key}")

    async def decode(self, key: str, window) -> WindowResult | None:
        self.calls.append(f"decode {key}")
        return RESULT if self.calls.count("decode m") == 2 else None


def test_a_model_that_was_dropped_is_loaded_again(monkeypatch) -> None:
    monkeypatch.setattr(ray.serve, "get_multiplexed_model_id", lambda: "m")
    replica = Replica()
    found = asyncio.run(Transcriber.transcribe(replica, np.zeros(16_000, np.int16), DecodeOptions()))
    assert found is RESULT
    assert replica.calls == ["load m", "decode m"] * 2


def test_only_loaded_models_are_found() -> None:
    replica = SimpleNamespace(_loaded=SimpleNamespace(models={"m": SimpleNamespace(recognizer="engine")}))
    assert Transcriber._find(replica, "m") == "engine"
    assert Transcriber._find(replica, "gone") is None
