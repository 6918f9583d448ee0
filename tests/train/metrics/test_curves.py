import json
import math
from pathlib import Path

import pytest
from accelerate import Accelerator

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.text.group_score import GroupScore
from sottovoce.train.metrics.curves import (
    CURVES_FILE,
    CurvePoint,
    Curves,
    RayMetrics,
    append_point,
    keep_points,
    name_gauge,
    read_curves,
)


def row(step: int, *groups: GroupScore) -> EvaluationRow:
    return EvaluationRow(
        step=step,
        epoch=0.0,
        training_loss=None,
        validation_loss=2.5,
        wer=0.5,
        wer_low=0.4,
        wer_high=0.6,
        cer=0.25,
        seconds=1.0,
        groups=groups,
    )


def score_of(corpus: str, *, wer: float) -> GroupScore:
    return GroupScore(
        kind="corpus",
        name=corpus,
        num_utterances=3,
        num_words=9,
        wer=wer,
        wer_low=wer,
        wer_high=wer,
        cer=wer,
        normalizer="basic",
    )


def test_points_read_back_as_they_were_logged_and_infinity_as_nan(tmp_path: Path) -> None:
    path = tmp_path / CURVES_FILE
    append_point(path, CurvePoint(1, {"train/loss": 1.5, "train/gradient_norm": math.inf}))
    append_point(path, CurvePoint(2, {"train/loss": 1.25}))
    first, second = read_curves(path)
    assert (first.step, first.values["train/loss"]) == (1, 1.5)
    assert math.isnan(first.values["train/gradient_norm"])
    assert second == CurvePoint(2, {"train/loss": 1.25})
    assert json.loads(path.read_text().splitlines()[1]) == {"step": 2, "train/loss": 1.25}


def test_a_run_without_curves_has_no_points(tmp_path: Path) -> None:
    assert read_curves(tmp_path / CURVES_FILE) == ()


def test_an_unfinished_line_of_a_killed_run_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / CURVES_FILE
    append_point(path, CurvePoint(1, {"train/loss": 1.5}))
    path.write_text(path.read_text() + '{"step": 2, "train/lo', encoding="utf-8")
    assert [point.step for point in read_curves(path)] == [1]
    assert "line 2 is skipped" in caplog.text


def test_a_resumed_run_drops_points_after_its_checkpoint_and_a_new_run_drops_all(tmp_path: Path) -> None:
    path = tmp_path / CURVES_FILE
    for step in (1, 2, 2, 3):
        append_point(path, CurvePoint(step, {"train/loss": 1.0}))
    assert [point.step for point in keep_points(path, last_step=2)] == [1, 2, 2]
    assert [point.step for point in read_curves(path)] == [1, 2, 2]
    assert keep_points(path, last_step=None) == ()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == ""


def test_metrics_are_logged_by_name_and_odd_group_names_become_plain(tmp_path: Path) -> None:
    curves = Curves(Accelerator(cpu=True), output=tmp_path)
    group = score_of("meetings (far/field)", wer=0.75)
    with curves.opened(None):
        curves.log_training(5, {"loss": 1.0, "data_wait": 0.2}, learning_rate=1e-4, own={"data_wait": 0.1})
        curves.log_validation(row(5, group))
    training, validation = read_curves(tmp_path / CURVES_FILE)
    assert training == CurvePoint(5, {"train/loss": 1.0, "train/data_wait": 0.2, "train/learning_rate": 1e-4})
    assert dict(validation.values) == {
        "validation/loss": 2.5,
        "validation/wer": 0.5,
        "validation/cer": 0.25,
        "validation/wer_corpus_meetings__far_field_": 0.75,
    }


def test_gauges_have_names_for_prometheus_and_need_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_gauge("train/loss") == "sottovoce_train_loss"
    assert name_gauge("validation/wer_corpus_a.b-c") == "sottovoce_validation_wer_corpus_a_b_c"
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    RayMetrics(run="a", rank=0).show({"train/loss": 1.0})
