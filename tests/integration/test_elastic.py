"""A run learns the same with however many workers there is room for.

Nodes that are lost, come back, or whose end is announced: see ``tests/endurance/test_changing_nodes.py``.
"""

from pathlib import Path

import pytest
from in_process_training import training_in_process
from tone_training import NUM_TRAIN

from benchmarks.audited_training import (
    AuditedTraining,
    audit_run,
    train_audited,
)
from jobs.train_whisper import TrainJob, main
from sottovoce.data.dataset import DatasetConfig
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

NUM_EPOCHS, STEPS_PER_EPOCH = 4, 2


def job_for(manifest: Path, base: Path, output: Path) -> AuditedTraining:
    """Three batches of two at a step, and room for two workers: one has a batch less, and brings an empty one."""
    training = {
        "base": str(base),
        "device": "cpu",
        "precision": "fp32",
        "num_workers": (1, 3),
        "cpus_per_worker": 1.5,
        "num_epochs": NUM_EPOCHS,
        "learning_rate": 1e-3,
        "dropout": 0.1,
        "evaluate_every_steps": NUM_EPOCHS * STEPS_PER_EPOCH,
        "log_every_steps": 2,
        "trackers": (),
    }
    return AuditedTraining(
        data=DatasetConfig(manifest=(manifest,), batch_size=2, steps_per_task=2),
        training=TrainingConfig.model_validate(training),
        output=output,
        audit=output.with_name(f"{output.name}-audit"),
    )


def read_record(output: Path) -> TrainingRecord:
    return TrainingRecord.model_validate_json((output / "record.json").read_text(encoding="utf-8"))


def test_three_batches_a_step_give_two_workers_what_they_give_one(
    local_ray: str, tones: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    two = job_for(tones, tiny_checkpoint, tmp_path / "two")
    train_audited(two)
    assert len(list(two.audit.glob("*.jsonl"))) == 2
    audit = audit_run(
        two.audit, everyone=[f"u{number}" for number in range(NUM_TRAIN)], steps_per_epoch=STEPS_PER_EPOCH
    )
    assert (audit.num_epochs_exact, audit.is_in_order, audit.num_steps_replayed) == (NUM_EPOCHS, True, 0)
    one = tmp_path / "one"
    with training_in_process():
        main(TrainJob(data=two.data, training=two.training, output=one))
    assert_same_losses(read_record(two.output), read_record(one))


def assert_same_losses(record: TrainingRecord, expected: TrainingRecord) -> None:
    for row, other in zip(record.rows, expected.rows, strict=True):
        assert row.step == other.step
        assert row.validation_loss == pytest.approx(other.validation_loss, abs=1e-4)
        assert row.training_loss == pytest.approx(other.training_loss, abs=1e-4)
