import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from made_up_runs import falling, make_curve, make_rows

from sottovoce.report.diagnosis.finding import Series, series_of
from sottovoce.report.run.plots import Marks, draw_error_rates, draw_losses, draw_metrics, thin

ROWS = make_rows([0.746, 0.4, 0.3, 0.25], losses=[2.9, 1.2, 1.0, 1.1])


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_losses_show_training_and_validation_with_units() -> None:
    panel = draw_losses(ROWS, make_curve("train/loss", falling(12)), Marks())
    assert {"step", "loss per token (nats)", "training, logged", "validation"} <= set(words(panel.svg))


def test_losses_of_very_different_size_share_a_logarithmic_axis() -> None:
    rows = make_rows([0.9, 0.5, 0.2], losses=[10.3, 1.0, 0.4], training_losses=[3.7, 0.2])
    ticks = {word for word in words(draw_losses(rows, (), Marks()).svg) if re.fullmatch(r"[\d.]+", word)}
    assert {"0.2", "0.5", "1", "2", "5", "10"} <= ticks


def test_losses_that_are_not_finite_are_left_out() -> None:
    rows = make_rows([0.9, 0.5, 0.2], losses=[2.0, float("nan"), 1.0], training_losses=[float("nan"), 0.5])
    assert "validation" in words(draw_losses(rows, (), Marks()).svg)


def test_error_rates_are_percent_with_interval_and_the_kept_checkpoint() -> None:
    panel = draw_error_rates(ROWS, Marks(kept=60))
    assert {"error rate (%)", "WER", "WER, 95 % interval", "CER", "kept"} <= set(words(panel.svg))
    assert "kept" not in words(draw_error_rates(ROWS, Marks()).svg)


def test_resumed_steps_are_lines_in_every_panel() -> None:
    without = draw_error_rates(ROWS, Marks()).svg
    twice = draw_error_rates(ROWS, Marks(resumed=(10, 30))).svg
    assert twice.count("<path") - without.count("<path") == 2


@pytest.mark.parametrize(
    ("figure", "values", "title", "label"),
    [
        ("train/learning_rate", [1e-6, 5e-6, 2e-6], "Learning rate", "learning rate (10⁻⁶)"),
        ("train/gradient_norm", [3.0, 2.0, 0.5], "Gradient norm", "gradient norm"),
        ("train/audio_s_per_s", [400.0, 410.0], "Throughput", "speech (s) per second"),
        ("train/data_wait", [0.0, 0.001], "Data wait", "share of the steps' time (%)"),
        ("train/memory_gib", [30.0, 38.0], "Memory", "GiB"),
        ("train/loss_scale", [65_536.0, 1_024.0], "Loss scale", "factor"),
        ("train/skipped_steps", [0.0, 3.0], "Skipped steps", "steps"),
    ],
)
def test_each_metric_has_a_panel_with_its_unit(figure: str, values: list[float], title: str, label: str) -> None:
    (panel,) = draw_metrics(make_curve(figure, values), Marks(), max_grad_norm=1.0)
    assert panel.title == title
    assert label in words(panel.svg)
    assert panel.caption.endswith(".")


def test_metrics_that_were_not_logged_or_are_all_zero_have_no_panel() -> None:
    assert draw_metrics((), Marks(), max_grad_norm=1.0) == []
    nothing = {"train/skipped_steps": [0.0, 0.0], "train/learning_rate": [0.0], "train/loss_scale": [1.0, 1.0]}
    curves = tuple(point for name, values in nothing.items() for point in make_curve(name, values))
    assert draw_metrics(curves, Marks(), max_grad_norm=1.0) == []


def test_a_small_data_wait_looks_small() -> None:
    (panel,) = draw_metrics(make_curve("train/data_wait", [0.001, 0.002]), Marks(), max_grad_norm=1.0)
    assert "5" in words(panel.svg)


def test_many_points_become_means_of_neighbours_and_keep_the_end() -> None:
    series = series_of(make_curve("train/loss", np.arange(10_000.0), every=10), "train/loss")
    thinned = thin(series, max_points=100)
    assert len(thinned) == 100
    assert thinned.steps[-1] == 100_000
    assert thinned.values[0] == pytest.approx(49.5)
    few = Series(np.array([1]), np.array([2.0]))
    assert thin(few) is few


def test_a_long_runs_plot_stays_small_and_counts_in_thousands() -> None:
    curve = make_curve("train/audio_s_per_s", np.random.default_rng(0).normal(400, 9, 10_000), every=10)
    (panel,) = draw_metrics(curve, Marks(), max_grad_norm=1.0)
    assert len(panel.svg) < 40_000
    assert "100k" in words(panel.svg)
