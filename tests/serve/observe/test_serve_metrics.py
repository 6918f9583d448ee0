"""The registry of the service's metrics."""

import re
from pathlib import Path

import pytest

from serve.observe import metrics
from serve.observe.metrics import BATCH_FILL, METRICS, REQUESTS, TOKENS, Metric, read_key, record

ROOT = Path(__file__).resolve().parents[3]
# What a label may be: names of our own tables, of the repository, or of HTTP. None is a client's text.
LABELS = {"device", "model", "variant", "route", "status", "reason", "outcome"}


def test_every_metric_is_in_the_registry_under_a_name_of_its_own():
    defined = [value for value in vars(metrics).values() if isinstance(value, Metric)]
    assert defined == list(METRICS)
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names) > 0
    assert all(re.fullmatch(r"sottovoce_serve_[a-z_]+", name) for name in names)


def test_metrics_have_known_labels_and_histograms_have_growing_buckets():
    for metric in METRICS:
        assert {*metric.labels} <= LABELS
        assert metric.meaning.endswith(".")
        assert bool(metric.boundaries) == (metric.kind == "histogram")
        assert list(metric.boundaries) == sorted(set(metric.boundaries))


def test_names_on_the_endpoint_are_rays():
    assert REQUESTS.shown_name == "ray_sottovoce_serve_requests_total"
    assert BATCH_FILL.shown_name == "ray_sottovoce_serve_batch_fill"


def test_every_metric_that_a_query_of_the_documentation_names_exists():
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bray_sottovoce_serve_[a-z_]*[a-z]\b", page))
    shown = {metric.shown_name for metric in METRICS}
    assert shown <= named
    assert {name.removesuffix("_bucket") for name in named} <= shown


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("sottovoce@int8/3-ab12", ("sottovoce", "int8", "3-ab12")),
        ("org/name@torch/0-cd", ("org/name", "torch", "0-cd")),
        ("", ("", "none", "")),
    ],
)
def test_a_key_is_split_into_model_variant_and_release(key, expected):
    assert tuple(read_key(key)) == expected


def test_a_value_without_all_labels_is_refused_before_ray_sees_it(recorded):
    with pytest.raises(AssertionError, match="sottovoce_serve_tokens has the labels"):
        record(TOKENS, 1, model="tiny")
    assert not recorded


def test_outside_ray_nothing_is_recorded(recorded, monkeypatch):
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: False)
    record(TOKENS, 1, model="tiny", variant="int8")
    assert not recorded
