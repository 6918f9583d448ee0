"""Metrics of a transcriber replica: its engine calls, and the models in its memory."""

import time
from collections.abc import Iterable, Mapping, Sequence

from serve.engine import Window
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
from sottovoce.schema import WindowResult


def record_batch(
    key: str,
    windows: Sequence[Window],
    outcomes: Sequence[WindowResult | Exception],
    *,
    started: float,
    max_batch_size: int,
) -> None:
    """Record an engine call that has just ended.

    Args:
        key: of the model.
        windows: of the call.
        outcomes: of each window.
        started: when the engine took the batch, by ``time.monotonic``.
        max_batch_size: windows of a full batch.
    """
    model = read_key(key).labels
    taken_s = max(time.monotonic() - started, 1e-6)  # above 0: a fake engine takes less than the clock shows
    num_tokens = sum(len(one.token_ids) for one in outcomes if isinstance(one, WindowResult))
    record(ENGINE_SECONDS, taken_s, **model)
    record(ENGINE_WORK_SECONDS, taken_s, **model)
    record(TOKENS, num_tokens, **model)
    record(TOKENS_PER_SECOND, num_tokens / taken_s, **model)
    record(BATCH_FILL, len(windows) / max_batch_size, **model)
    for window, outcome in zip(windows, outcomes, strict=True):
        record(QUEUE_SECONDS, max(0.0, started - window.arrived), **model)
        record(WINDOWS, 1, outcome=_name_outcome(window, outcome), **model)


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


def _name_outcome(window: Window, outcome: WindowResult | Exception) -> str:
    if isinstance(outcome, Exception):
        return "failed"
    return "fallback" if outcome.temperature > window.options.temperatures[0] else "first_temperature"
