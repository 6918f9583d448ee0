"""Metrics of a transcriber replica: its decodings, and the models in its memory."""

from collections.abc import Iterable, Mapping

from serve.models.loading import LoadedModel, count_bytes
from serve.observe.metrics import (
    BATCH_FILL,
    ENGINE_SECONDS,
    ENGINE_WORK_SECONDS,
    MODEL_BYTES,
    MODEL_BYTES_LIMIT,
    MODELS_LOADED,
    QUEUE_SECONDS,
    TOKENS,
    TOKENS_PER_SECOND,
    WINDOWS,
    read_key,
    record,
)
from sottovoce.model.variants import RunDevice
from sottovoce.schema import DecodeOptions, WindowResult


def record_start(key: str, waited_s: Iterable[float], *, share: float) -> None:
    """Record windows that begin together.

    Args:
        key: of the model.
        waited_s: seconds that each window waited in the replica.
        share: their number over ``max_batch_size``.
    """
    model = read_key(key).labels
    record(BATCH_FILL, share, **model)
    for seconds in waited_s:
        record(QUEUE_SECONDS, seconds, **model)


def record_window(key: str, options: DecodeOptions, outcome: WindowResult | Exception) -> None:
    """Record the result or the error of a window that was decoded with these options."""
    model = read_key(key).labels
    record(WINDOWS, 1, outcome=_name_outcome(options, outcome), **model)
    if isinstance(outcome, WindowResult):
        record(TOKENS, len(outcome.token_ids), **model)


def record_batch(key: str, *, seconds: float, num_tokens: int) -> None:
    """Record windows of one context whose decoding has just ended.

    Args:
        key: of the model.
        seconds: that the engine spent on them.
        num_tokens: of all their texts.
    """
    model = read_key(key).labels
    taken_s = max(seconds, 1e-6)  # above 0: a fake engine takes less than the clock shows
    record(ENGINE_SECONDS, taken_s, **model)
    record(ENGINE_WORK_SECONDS, taken_s, **model)
    record(TOKENS_PER_SECOND, num_tokens / taken_s, **model)


class LoadedModelMetrics:
    """Gauges of the models in memory. Ray forgets a gauge after 20 s, so Serve's health check repeats them."""

    def __init__(self, *, max_bytes: Mapping[RunDevice, int]) -> None:
        """Start with no model.

        Args:
            max_bytes: the memory budget of each device.
        """
        self._max_bytes = max_bytes
        self._shown: set[tuple[str, str]] = set()

    def show(self, models: Iterable[LoadedModel]) -> None:
        """Set the gauges to the models that are in memory now; a model that has left shows 0."""
        present = list(models)
        labels = [read_key(model.plan.key)[:2] for model in present]
        self._shown |= {*labels}
        for name, variant in self._shown:
            record(MODELS_LOADED, labels.count((name, variant)), model=name, variant=variant)
        for device, limit in self._max_bytes.items():
            footprints = [model.footprint for model in present if model.footprint.device == device]
            record(MODEL_BYTES, count_bytes(footprints), device=device)
            record(MODEL_BYTES_LIMIT, limit, device=device)


def _name_outcome(options: DecodeOptions, outcome: WindowResult | Exception) -> str:
    if isinstance(outcome, Exception):
        return "failed"
    return "fallback" if outcome.temperature > options.temperatures[0] else "first_temperature"
