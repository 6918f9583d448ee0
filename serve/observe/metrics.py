"""The service's metrics: one registry, recorded through Ray to the Prometheus endpoint of each node.

Ray writes ``ray_`` in front of a name, ``_total`` behind a counter's, and adds the labels ``application``,
``deployment`` and ``replica``. It rebuilds a histogram from the middles of its buckets, so that ``_sum`` is an estimate
(Ray 2.60, ``open_telemetry_metric_recorder.py``). What must add up exactly is therefore a counter as well.

No label value is made by a client: a model's name comes from the repository, and a reason from the table of errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, TypeAlias, cast

import ray
from ray.serve import metrics as serve_metrics

from serve.models.model_plan import VARIANT_MARK

_PREFIX = "sottovoce_serve_"
_MODEL = ("model", "variant")
NO_MODEL = "none"
"""Label of a request that was refused before its model was found."""

# Bucket bounds: two or three for each power of ten, over what two cores and a GPU can show.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
_RTFX = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
_TOKENS_PER_SECOND = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0)
_SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One metric of the registry."""

    own_name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    """A sentence for the documentation and for Prometheus."""
    boundaries: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""

    @property
    def name(self) -> str:
        """Name as given to Ray."""
        return _PREFIX + self.own_name

    @property
    def shown_name(self) -> str:
        """Name on the endpoint; a histogram's lines end in ``_bucket``, ``_sum`` and ``_count`` there."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


REQUESTS = Metric(
    "requests",
    "counter",
    ("route", "status", "reason", *_MODEL),
    "Requests that ended, but for probes. `reason` is the error's `code`, `ok`, or `cancelled` for a client that left.",
)
REQUEST_SECONDS = Metric(
    "request_seconds", "histogram", _MODEL, "Seconds from a request's first byte to its last, if answered.", _SECONDS
)
AUDIO_DECODE_SECONDS = Metric(
    "audio_decode_seconds",
    "histogram",
    _MODEL,
    "Seconds in which a gateway decoded a recording, the wait for a decoder included.",
    _SECONDS,
)
FIRST_DELTA_SECONDS = Metric(
    "first_delta_seconds", "histogram", _MODEL, "Seconds from a stream's request to its first event.", _SECONDS
)
AUDIO_SECONDS = Metric("audio_seconds", "counter", _MODEL, "Seconds of audio of answered requests.")
WORK_SECONDS = Metric(
    "work_seconds", "counter", _MODEL, "Seconds that answered requests took; audio seconds over these are the RTFx."
)
RTFX = Metric("rtfx", "histogram", _MODEL, "Audio seconds per wall second of each answered request.", _RTFX)
TRANSCRIPTS = Metric(
    "transcripts",
    "counter",
    ("outcome", *_MODEL),
    "Transcripts by `outcome`: `text` or `empty`. Their ratio is the rate of empty transcripts.",
)
WINDOW_SECONDS = Metric(
    "window_seconds",
    "histogram",
    _MODEL,
    "Seconds from sending a window to its result: waiting for a replica, queue, batch and retries.",
    _SECONDS,
)
QUEUE_SECONDS = Metric(
    "queue_seconds", "histogram", _MODEL, "Seconds that a window waited in its replica for the engine.", _SECONDS
)
BATCH_FILL = Metric(
    "batch_fill", "histogram", _MODEL, "Windows that began together, as a share of `max_batch_size`.", _SHARES
)
ENGINE_SECONDS = Metric(
    "engine_seconds",
    "histogram",
    _MODEL,
    "Seconds that the engine spent on windows decoded together (decode time).",
    _SECONDS,
)
ENGINE_WORK_SECONDS = Metric("engine_work_seconds", "counter", _MODEL, "Seconds of all decoding.")
TOKENS = Metric("tokens", "counter", _MODEL, "Tokens of decoded windows; over `engine_work_seconds`: tokens/s.")
TOKENS_PER_SECOND = Metric(
    "tokens_per_second", "histogram", _MODEL, "Tokens per second of windows decoded together.", _TOKENS_PER_SECOND
)
WINDOWS = Metric(
    "windows",
    "counter",
    ("outcome", *_MODEL),
    "Decoded windows by `outcome`: `first_temperature`, `fallback` (text of a higher temperature) or `failed`.",
)
MODELS_LOADED = Metric("models_loaded", "gauge", _MODEL, "Versions of a model in a replica's memory.")
MODEL_BYTES = Metric(
    "model_bytes", "gauge", ("device",), "Memory of a replica's models on `cpu` or `cuda`, by their files' sizes."
)
MODEL_BYTES_LIMIT = Metric(
    "model_bytes_limit", "gauge", ("device",), "The memory budget: `max_model_bytes`, on `cuda` `max_gpu_bytes`."
)

METRICS = (
    REQUESTS,
    REQUEST_SECONDS,
    AUDIO_DECODE_SECONDS,
    FIRST_DELTA_SECONDS,
    AUDIO_SECONDS,
    WORK_SECONDS,
    RTFX,
    TRANSCRIPTS,
    WINDOW_SECONDS,
    QUEUE_SECONDS,
    BATCH_FILL,
    ENGINE_SECONDS,
    ENGINE_WORK_SECONDS,
    TOKENS,
    TOKENS_PER_SECOND,
    WINDOWS,
    MODELS_LOADED,
    MODEL_BYTES,
    MODEL_BYTES_LIMIT,
)
"""Every metric, in the order of the documentation."""


class ModelLabels(NamedTuple):
    """The labels of one model, and its release for the log."""

    model: str
    variant: str
    release: str
    """Version and digest; not a label, because each promotion has a new one."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that most metrics have."""
        return {"model": self.model, "variant": self.variant}


def read_key(key: str) -> ModelLabels:
    """Split a model's key, ``name@variant/release``; see ``ModelPlan.key``."""
    name, _, rest = key.partition(VARIANT_MARK)
    variant, _, release = rest.partition("/")
    return ModelLabels(name, variant or NO_MODEL, release)


def record(metric: Metric, value: float, **labels: str) -> None:
    """Add to a counter, set a gauge, or observe a value. Does nothing outside Ray.

    Args:
        metric: of the registry.
        value: a counter ignores 0.
        labels: a value for each of the metric's labels, none of them made by a client.
    """
    assert set(labels) == set(metric.labels), f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}"
    if ray.is_initialized():
        _send(metric, float(value), labels)


def metrics_url() -> str:
    """Return the address of the Prometheus endpoint of this Ray's first node; every other node has its own."""
    node = ray.nodes()[0]  # type: ignore[no-untyped-call]
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def _send(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    instrument = _instrument(metric)
    if isinstance(instrument, serve_metrics.Histogram):
        instrument.observe(value, tags=dict(labels))
    elif isinstance(instrument, serve_metrics.Gauge):
        instrument.set(value, tags=dict(labels))
    elif value > 0.0:  # Ray refuses to add 0
        instrument.inc(value, tags=dict(labels))


@cache
def _instrument(metric: Metric) -> serve_metrics.Counter | serve_metrics.Gauge | serve_metrics.Histogram:
    """Return Ray's object for a metric; a replica makes it once."""
    labels = cast(tuple[str], metric.labels)  # Ray's annotation of any number of labels
    if metric.kind == "histogram":
        return serve_metrics.Histogram(metric.name, metric.meaning, list(metric.boundaries), tag_keys=labels)
    if metric.kind == "gauge":
        return serve_metrics.Gauge(metric.name, metric.meaning, tag_keys=labels)
    return serve_metrics.Counter(metric.name, metric.meaning, tag_keys=labels)
