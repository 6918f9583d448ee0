"""Metrics of a transcriber: its engine calls, and the models in its memory."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from serve.engine import Window
from serve.models.loading import Footprint, LoadedModel
from serve.models.model_plan import ModelPlan
from serve.observe.engine_metrics import LoadedModelMetrics, record_batch
from serve.observe.metrics import (
    BATCH_FILL,
    ENGINE_WORK_SECONDS,
    MODEL_BYTES,
    MODEL_BYTES_LIMIT,
    MODELS_LOADED,
    QUEUE_SECONDS,
    TOKENS,
    TOKENS_PER_SECOND,
    WINDOWS,
)
from serve.transcriber import Transcriber
from sottovoce.schema import DecodeOptions, WindowResult


def window(*temperatures: float, waited_s: float = 0.0) -> Window:
    options = DecodeOptions(temperatures=temperatures or (0.0,))
    return Window(np.zeros(16_000, np.int16), options, arrived=time.monotonic() - waited_s)


def result(temperature: float, num_tokens: int) -> WindowResult:
    return WindowResult(
        text="",
        token_ids=(1,) * num_tokens,
        language="en",
        avg_logprob=0.0,
        no_speech_prob=0.0,
        temperature=temperature,
    )


def loaded(key: str, num_bytes: int) -> LoadedModel:
    plan = ModelPlan(key=key, folder="x", variant="int8", created=1)
    return LoadedModel(plan, SimpleNamespace(), Footprint(num_bytes))


def test_a_batch_shows_its_fill_wait_time_and_tokens(values, labels):
    windows = [window(0.0, 0.2, waited_s=4.0), window(0.0, 0.2, waited_s=3.0), window(0.5)]
    outcomes = [result(0.0, 20), result(0.2, 10), result(0.5, 30)]
    record_batch("tiny@int8/1-a", windows, outcomes, started=time.monotonic() - 2.0, max_batch_size=4)
    assert values(BATCH_FILL) == [0.75]
    assert values(TOKENS) == [60.0]
    assert values(ENGINE_WORK_SECONDS) == [pytest.approx(2.0, abs=0.5)]
    assert values(TOKENS_PER_SECOND) == [pytest.approx(60.0 / values(ENGINE_WORK_SECONDS)[0])]
    assert values(QUEUE_SECONDS) == [pytest.approx(2.0, abs=0.5), pytest.approx(1.0, abs=0.5), 0.0]
    assert [given["outcome"] for given in labels(WINDOWS)] == ["first_temperature", "fallback", "first_temperature"]
    assert labels(TOKENS) == [{"model": "tiny", "variant": "int8"}]


def test_a_window_that_fails_is_counted_and_has_no_tokens(values, labels):
    outcomes = [ValueError("bad"), result(0.0, 5)]
    record_batch("tiny@int8/1-a", [window(), window()], outcomes, started=time.monotonic(), max_batch_size=8)
    assert [given["outcome"] for given in labels(WINDOWS)] == ["failed", "first_temperature"]
    assert values(TOKENS) == [5.0]


def test_gauges_count_versions_and_a_model_that_left_shows_zero(values, labels):
    gauges = LoadedModelMetrics(max_bytes={"cpu": 1_000})
    gauges.show([loaded("tiny@int8/1-a", 100), loaded("tiny@int8/2-b", 100), loaded("base@int8/1-c", 300)])
    counts = {given["model"]: value for given, value in zip(labels(MODELS_LOADED), values(MODELS_LOADED), strict=True)}
    assert counts == {"tiny": 2.0, "base": 1.0}
    gauges.show([loaded("tiny@int8/2-b", 100)])
    last = zip(labels(MODELS_LOADED)[-2:], values(MODELS_LOADED)[-2:], strict=True)
    assert {given["model"]: value for given, value in last} == {"tiny": 1.0, "base": 0.0}
    assert values(MODEL_BYTES) == [500.0, 100.0]
    assert values(MODEL_BYTES_LIMIT) == [1_000.0, 1_000.0]


def test_the_health_check_repeats_the_gauges(values):
    replica = SimpleNamespace(
        _loaded=SimpleNamespace(models={"k": loaded("tiny@int8/1-a", 100)}),
        _model_metrics=LoadedModelMetrics(max_bytes={"cpu": 1_000}),
        _engine=SimpleNamespace(running_s=lambda: 0.0),
        _max_batch_s=1.0,
    )
    Transcriber.check_health(replica)
    Transcriber.check_health(replica)
    assert values(MODELS_LOADED) == [1.0, 1.0]
