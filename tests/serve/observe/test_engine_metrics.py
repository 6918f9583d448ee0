"""Metrics of a transcriber: its decodings, and the models in its memory."""

from types import SimpleNamespace

from serve.models.loading import Footprint, LoadedModel
from serve.models.model_plan import ModelPlan
from serve.observe.engine_metrics import LoadedModelMetrics, record_batch, record_start, record_window
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


KEY = "tiny@int8/1-a"


def test_windows_that_begin_show_their_share_of_a_batch_and_their_waits(values):
    record_start(KEY, [2.0, 1.0, 0.0], share=0.75)
    assert values(BATCH_FILL) == [0.75]
    assert values(QUEUE_SECONDS) == [2.0, 1.0, 0.0]


def test_a_batch_shows_its_seconds_and_tokens(values, labels):
    record_batch(KEY, seconds=2.0, num_tokens=60)
    assert values(ENGINE_WORK_SECONDS) == [2.0]
    assert values(TOKENS_PER_SECOND) == [30.0]
    assert labels(ENGINE_WORK_SECONDS) == [{"model": "tiny", "variant": "int8"}]


def test_a_window_shows_how_it_ended_and_its_tokens(values, labels):
    record_window(KEY, DecodeOptions(temperatures=(0.0, 0.2)), result(0.0, 20))
    record_window(KEY, DecodeOptions(temperatures=(0.0, 0.2)), result(0.2, 10))
    record_window(KEY, DecodeOptions(temperatures=(0.5,)), result(0.5, 30))
    record_window(KEY, DecodeOptions(), ValueError("bad"))
    outcomes = [given["outcome"] for given in labels(WINDOWS)]
    assert outcomes == ["first_temperature", "fallback", "first_temperature", "failed"]
    assert values(TOKENS) == [20.0, 10.0, 30.0]
    assert labels(TOKENS)[0] == {"model": "tiny", "variant": "int8"}


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
        _max_step_s=1.0,
    )
    Transcriber.check_health(replica)
    Transcriber.check_health(replica)
    assert values(MODELS_LOADED) == [1.0, 1.0]
