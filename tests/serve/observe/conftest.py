"""Metrics and log lines of a gateway without Ray, kept instead of sent."""

import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from serve.observe import metrics
from serve.observe.metrics import Metric

Recorded = list[tuple[Metric, float, dict[str, str]]]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Everything recorded while the test runs, in order."""
    kept: Recorded = []
    monkeypatch.setattr(metrics, "ray", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(metrics, "_send", lambda metric, value, labels: kept.append((metric, value, labels)))
    return kept


@pytest.fixture
def values(recorded: Recorded) -> Callable[[Metric], list[float]]:
    """Read the recorded values of one metric."""
    return lambda metric: [value for one, value, _ in recorded if one is metric]


@pytest.fixture
def labels(recorded: Recorded) -> Callable[[Metric], list[dict[str, str]]]:
    """Read the recorded labels of one metric."""
    return lambda metric: [given for one, _, given in recorded if one is metric]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Read the request lines logged so far."""
    caplog.set_level(logging.INFO, logger="serve")
    name = "serve.observe.request_log"
    return lambda: [json.loads(record.getMessage()) for record in caplog.records if record.name == name]
