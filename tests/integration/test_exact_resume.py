"""A run killed with -9 ends with the weights of one left alone, having trained on every utterance once an epoch."""

import os
from pathlib import Path

import pytest

from benchmarks.audited_training import (
    AuditedTraining,
    Kill,
    audit_run,
    digest_weights,
    draw_kills,
    train_audited,
    train_killed,
    write_tones,
)
from sottovoce.audio.augmentation.augment import AugmentConfig
from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.data.dataset import DatasetConfig
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

NUM_TRAIN, NUM_VALIDATION, NUM_EPOCHS, STEPS_PER_EPOCH = 36, 4, 8, 3
EVERYONE = [f"u{number}" for number in range(NUM_TRAIN)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"), num_train=NUM_TRAIN, num_validation=NUM_VALIDATION)


def job_for(manifest: Path, base: Path, output: Path, **training: object) -> AuditedTraining:
    """Twelve utterances a step, in three microbatches or however ``training`` says; all that is random is switched on."""
    settings = {
        "base": str(base),
        "device": "cpu",
        "precision": "fp32",
        "num_workers": 2,
        "num_epochs": NUM_EPOCHS,
        "learning_rate": 1e-3,
        "warmup_steps": 4,
        "dropout": 0.1,
        "spec_augment": SpecAugmentConfig(num_time_masks=1, num_mel_masks=1),
        "evaluate_every_steps": 12,
        "save_every_steps": 4,
        "log_every_steps": 1,
        "max_failures": 5,
    }
    return AuditedTraining(
        data=DatasetConfig(
            manifest=(manifest,), batch_size=6, steps_per_task=4, augment=AugmentConfig(noise_probability=0.5)
        ),
        training=TrainingConfig.model_validate(settings | training),
        output=output,
        audit=output.with_name(f"{output.name}-audit"),
    )


def rows_of(job: AuditedTraining) -> tuple[EvaluationRow, ...]:
    return TrainingRecord.model_validate_json((job.output / "record.json").read_text(encoding="utf-8")).rows


@pytest.fixture(scope="module")
def undisturbed(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> AuditedTraining:
    job = job_for(manifest, tiny_checkpoint, tmp_path_factory.mktemp("runs") / "undisturbed")
    train_audited(job)
    return job


def test_a_run_whose_workers_and_driver_are_killed_ends_with_the_same_weights(
    local_ray: str, undisturbed: AuditedTraining, manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = job_for(manifest, tiny_checkpoint, tmp_path / "killed")
    environment = os.environ | {"RAY_ADDRESS": local_ray}
    kills: list[Kill] = draw_kills(
        ["worker", "driver", "worker"], num_steps=NUM_EPOCHS * STEPS_PER_EPOCH, seed=os.getpid()
    )
    train_killed(job, kills, environment=environment, log=tmp_path / "drivers.log")
    audit = audit_run(job.audit, everyone=EVERYONE, steps_per_epoch=STEPS_PER_EPOCH)
    assert audit.num_workers == 2 * (1 + len(kills)), kills
    assert (audit.num_disagreeing, audit.num_epochs_exact, audit.is_in_order) == (0, NUM_EPOCHS, True), kills
    assert audit.num_steps_replayed <= len(kills) * 8, "a checkpoint every four steps, and one that is being written"
    assert digest_weights(job.output) == digest_weights(undisturbed.output), kills
    rows, expected = (
        [row.model_copy(update={"seconds": 0.0}) for row in rows_of(one)] for one in (job, undisturbed)
    )  # fmt: skip
    assert rows == expected, "losses and error rates are those of the undisturbed run, to the bit"


def test_three_batches_a_step_give_one_worker_what_they_give_two(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    short = {"max_steps": 9, "evaluate_every_steps": 9}
    one = job_for(manifest, tiny_checkpoint, tmp_path / "one", num_workers=1, accumulation_steps=3, **short)
    train_audited(one)
    # up to three workers, but there is room for two: the second has one microbatch less, and brings an empty batch
    two = job_for(manifest, tiny_checkpoint, tmp_path / "two", num_workers=(1, 3), cpus_per_worker=1.5, **short)
    train_audited(two)
    assert [len(list(job.audit.glob("*.jsonl"))) for job in (one, two)] == [1, 2]
    assert_same_losses(two, one)
    audit = audit_run(two.audit, everyone=EVERYONE, steps_per_epoch=2)
    assert (audit.num_epochs_exact, audit.is_in_order, audit.num_steps_replayed) == (4, True, 0)


def assert_same_losses(job: AuditedTraining, undisturbed: AuditedTraining) -> None:
    for row, expected in zip(rows_of(job), rows_of(undisturbed), strict=True):
        assert row.step == expected.step
        assert row.validation_loss == pytest.approx(expected.validation_loss, abs=1e-4)
        assert row.training_loss == pytest.approx(expected.training_loss, abs=1e-4)
