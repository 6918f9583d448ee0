"""The diagnosis of a run as a whole; each finding has its own tests in test_diagnosis_*.py."""

import logging
import random

import pytest
from made_up_runs import EVERY, falling, healthy_record, make_curve, make_group, make_record, make_rows

from jobs.prepare_manifest import PrepareJob
from jobs.train_whisper import TrainJob
from sottovoce.report.diagnosis.diagnose import diagnose, log_findings
from sottovoce.report.diagnosis.finding import Finding
from sottovoce.train.config import TrainingConfig
from sottovoce.train.metrics.curves import CurvePoint

METRICS = ("loss", "gradient_norm", "data_wait", "loss_scale", "skipped_steps")


def random_run(seed: int) -> tuple[Finding, ...]:
    """Diagnose a run whose metrics are random."""
    rng = random.Random(seed)
    num_rows = rng.randint(1, 12)
    groups = {index: (make_group("en", rng.random()), make_group("de", rng.random())) for index in range(num_rows)}
    rows = make_rows(
        [rng.choice([0.0, rng.random(), 3.0]) for _ in range(num_rows)],
        losses=[rng.choice([0.0, rng.random(), 12.0, float("nan")]) for _ in range(num_rows)],
        training_losses=[rng.choice([0.0, rng.random(), float("nan"), 9.0]) for _ in range(num_rows)],
        groups=groups,
    )
    method, max_steps = rng.choice(["full", "frozen_encoder"]), rng.choice([None, EVERY * num_rows])
    patience, warmup_steps = rng.choice([None, 2]), rng.choice([0, 5, 500])
    record = make_record(
        rows,
        training=TrainingConfig(
            method=method, max_steps=max_steps, patience=patience, warmup_steps=warmup_steps, num_workers=1
        ),
        precision=rng.choice(["fp16", "fp32"]),
        data_wait_s=rng.choice([0.0, 100.0]),
        rejects={"silent": rng.randint(0, 9)},
        is_finished=rng.random() < 0.8,
    )
    curves = [
        CurvePoint(step, {f"train/{name}": rng.choice([float("nan"), 0.0, rng.random(), 50.0]) for name in METRICS})
        for step in range(rng.randint(0, 60))
    ]
    return diagnose(record, curves)


def test_a_healthy_run_has_no_findings() -> None:
    assert diagnose(healthy_record(), make_curve("train/loss", falling(20))) == ()


def test_a_run_without_evaluations_has_no_findings() -> None:
    assert diagnose(make_record(()), ()) == ()


def test_random_metrics_give_complete_findings_with_new_values() -> None:
    found = [finding for seed in range(300) for finding in random_run(seed)]
    assert len({finding.name for finding in found}) >= 13, "these runs cover nearly every finding"
    for finding in found:
        assert finding.seen.endswith(".")
        assert finding.advice.endswith(".")
        assert "None" not in finding.describe()
        assert all(change.value != change.before for change in finding.changes), finding.describe()


def test_every_setting_that_is_proposed_exists_and_takes_the_value() -> None:
    changes = {change.name: change for seed in range(300) for finding in random_run(seed) for change in finding.changes}
    assert len(changes) >= 8
    for name, change in changes.items():
        stage, *path = name.split(".")
        config = {"training": TrainJob, "data": TrainJob, "prepare": PrepareJob}[stage].model_fields[stage].annotation
        assert config is not None
        for part in path[:-1]:
            config = config.model_fields[part].annotation
        required = {"manifest": ["m.jsonl"]} if stage == "data" else {}
        config.model_validate({**required, path[-1]: change.value})


def test_the_gravest_comes_first() -> None:
    groups = {0: (make_group("de", 0.1),), 3: (make_group("de", 0.4),)}
    rows = make_rows([0.5, 0.3, 0.2, 0.1], groups=groups)
    severities = [finding.severity for finding in diagnose(make_record(rows, rejects={"silent": 90}), ())]
    assert severities == ["serious", "warning", "note"]


def test_a_finding_that_a_graver_one_covers_is_left_out() -> None:
    rows = make_rows([0.2, 0.5, 0.6, 0.7, 0.8], losses=[1.0, 2.0, 2.1, 2.2, 2.3])
    assert [finding.name for finding in diagnose(make_record(rows), ())] == [
        "worse_than_the_base",
        "learning_rate_too_high",
    ]


def test_findings_are_lines_of_the_log_with_numbers_and_settings(caplog: pytest.LogCaptureFixture) -> None:
    rows = make_rows([0.5, 0.3, 0.2, 0.21, 0.25, 0.3], training_losses=[1.5, 1.0, 0.6, 0.3, 0.1])
    with caplog.at_level(logging.INFO):
        log_findings(diagnose(make_record(rows), ()))
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert line.message.startswith("WER rises: WER rose from 20.0 % at step 40 to 30.0 % at step 100")
    assert "training.patience=3, training.num_epochs=1 (was 10)" in line.message
    assert "training.learning_rate=5e-05 (was 0.0001)" in line.message
