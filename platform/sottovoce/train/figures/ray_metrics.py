"""A run's figures as Ray metrics: on each node's Prometheus endpoint, and so in whatever Ray's dashboard reads from."""

import re
from collections.abc import Mapping

import ray
from ray.util.metrics import Gauge

_PREFIX = "sottovoce_"
_NOT_PROMETHEUS = re.compile(r"[^a-zA-Z0-9_]")
_TAGS = ("run", "rank")


class RayMetrics:
    """One gauge for each figure, with this run's and rank's tags; does nothing outside Ray."""

    def __init__(self, *, run: str, rank: int) -> None:
        self._tags = {"run": run, "rank": str(rank)}
        self._gauges: dict[str, Gauge] = {}

    def show(self, values: Mapping[str, float]) -> None:
        """Set each figure's gauge; ``train/loss`` becomes ``sottovoce_train_loss``, before which Ray puts ``ray_``."""
        if not ray.is_initialized():
            return
        for name, value in values.items():
            if name not in self._gauges:
                metric = name_metric(name)
                self._gauges[name] = Gauge(metric, description=f"Sottovoce: {name}", tag_keys=_TAGS)
            self._gauges[name].set(value, tags=self._tags)


def name_metric(name: str) -> str:
    """Give a figure's name as Prometheus takes it."""
    return _PREFIX + _NOT_PROMETHEUS.sub("_", name)
