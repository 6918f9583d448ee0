"""Two runs of the same settings, one left alone and one whose processes die: what each leaves, and that they agree.

The second loses a worker that stands still, which the heartbeat kills, and its driver by SIGKILL; all that is random
is switched on. Deaths by the hundred: ``benchmarks.training_kills``. Nodes that are lost, come back, or whose end is
announced: ``tests/endurance/test_changing_nodes.py``.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psutil
import pytest
from huggingface_hub import ModelCard
from offline_wandb import read_history, read_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import WhisperForConditionalGeneration

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
from jobs.train_whisper import TrainJob
from jobs.train_whisper import main as train
from sottovoce.audio.augmentation.augment import AugmentConfig
from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig
from sottovoce.data.dataset import DatasetConfig
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.train.config import TrainingConfig
from sottovoce.train.metrics.curves import CURVES_FILE, CurvePoint, read_curves
from sottovoce.train.record import EvaluationRow, TrainingRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

NUM_TRAIN, NUM_VALIDATION, NUM_EPOCHS, STEPS_PER_EPOCH = 36, 4, 8, 3
NUM_STEPS, EVALUATED_EVERY, SAVED_EVERY = NUM_EPOCHS * STEPS_PER_EPOCH, 12, 4
EVERYONE = [f"u{number}" for number in range(NUM_TRAIN)]
STUCK_AFTER_S = 10.0
TRAINING = {
    "train/loss",
    "train/learning_rate",
    "train/gradient_norm",
    "train/loss_scale",
    "train/audio_s_per_s",
    "train/steps_per_s",
    "train/data_wait",
    "train/memory_gib",
    "train/skipped_steps",
}
VALIDATION = {"validation/loss", "validation/wer", "validation/cer"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"), num_train=NUM_TRAIN, num_validation=NUM_VALIDATION)


def job_for(manifest: Path, base: Path, output: Path) -> AuditedTraining:
    training = {
        "base": str(base),
        "device": "cpu",
        "precision": "fp32",
        "num_workers": 2,
        "num_epochs": NUM_EPOCHS,
        "learning_rate": 1e-3,
        "warmup_steps": 4,
        "dropout": 0.1,
        "audio_context_s": (1.0, 6.0),
        "spec_augment": SpecAugmentConfig(num_time_masks=1, num_mel_masks=1),
        "evaluate_every_steps": EVALUATED_EVERY,
        "save_every_steps": SAVED_EVERY,
        "log_every_steps": 1,
        "max_failures": 8,
        "stuck_after_s": STUCK_AFTER_S,
        "trackers": ("tensorboard", "mlflow", "wandb"),
    }
    return AuditedTraining(
        data=DatasetConfig(
            manifest=(manifest,), batch_size=6, steps_per_task=4, augment=AugmentConfig(noise_probability=0.5)
        ),
        training=TrainingConfig.model_validate(training),
        output=output,
        audit=output.with_name(f"{output.name}-audit"),
    )


@pytest.fixture(scope="module")
def undisturbed(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> AuditedTraining:
    job = job_for(manifest, tiny_checkpoint, tmp_path_factory.mktemp("runs") / "undisturbed")
    train_audited(job)
    return job


@dataclass(frozen=True)
class KilledRun:
    """A run some of whose processes died, and what its drivers said."""

    job: AuditedTraining
    kills: list[Kill]
    log: str

    @property
    def record(self) -> TrainingRecord:
        return read_record(self.job)


@pytest.fixture(scope="module")
def killed(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> KilledRun:
    job = job_for(manifest, tiny_checkpoint, tmp_path_factory.mktemp("runs") / "killed")
    kills = draw_kills(["stopped worker", "driver"], num_steps=NUM_STEPS, seed=os.getpid())
    log = job.audit.with_suffix(".log")
    environment = os.environ | {"RAY_ADDRESS": local_ray}
    train_killed(job, kills, environment=environment, log=log, between_drivers=lambda: ruin_rays_state(job.output))
    return KilledRun(job, kills, log.read_text(encoding="utf-8"))


def ruin_rays_state(output: Path) -> None:
    """Leave what Ray Train itself would restore half written: our own store alone says where a run stands."""
    for folder in [*(output / "ray").iterdir(), output / "ray" / output.name, output / "ray" / "run"]:
        folder.mkdir(exist_ok=True)
        (folder / "checkpoint_manager_snapshot.json").write_text('{"checkpoint_results": [{"chec', encoding="utf-8")


def read_record(job: AuditedTraining) -> TrainingRecord:
    return TrainingRecord.model_validate_json((job.output / "record.json").read_text(encoding="utf-8"))


def test_a_run_ends_with_checkpoint_record_card_settings_and_curves(undisturbed: AuditedTraining) -> None:
    output, record = undisturbed.output, read_record(undisturbed)
    assert [row.step for row in record.rows] == [0, EVALUATED_EVERY, NUM_STEPS]
    assert [row.epoch for row in record.rows] == [0.0, NUM_EPOCHS / 2, NUM_EPOCHS]
    assert record.rows[0].training_loss is None
    assert record.rows[2].validation_loss < record.rows[0].validation_loss
    assert record.best.wer == min(row.wer for row in record.rows)
    assert record.resumed_at == ()
    assert (record.data.num_train, record.data.num_validation, record.data.num_speakers) == (NUM_TRAIN, 4, 2)
    checkpoint = load_checkpoint(output / "checkpoint")
    assert (checkpoint.context.min_s, checkpoint.context.max_s) == (1.0, 6.0)
    assert checkpoint.model.generation_config.to_dict()["language"] == "en"
    assert checkpoint.model.generation_config.to_dict()["task"] == "transcribe"
    assert WhisperForConditionalGeneration.from_pretrained(output / "checkpoint").config.use_cache
    assert ModelCard.load(output / "checkpoint" / "README.md").data.model_name == "undisturbed"
    assert list((output / "tensorboard").rglob("events.out.tfevents.*"))
    assert (output / "train_whisper.yaml").is_file()
    assert "training, logged" in (output / "report.html").read_text(encoding="utf-8")


def test_a_run_whose_workers_and_driver_are_killed_ends_with_the_same_weights(
    undisturbed: AuditedTraining, killed: KilledRun
) -> None:
    audit = audit_run(killed.job.audit, everyone=EVERYONE, steps_per_epoch=STEPS_PER_EPOCH)
    # a busy machine may make another worker seem stuck, too
    assert audit.num_workers >= 2 * (1 + len(killed.kills)), killed.kills
    assert (audit.num_disagreeing, audit.num_epochs_exact, audit.is_in_order) == (0, NUM_EPOCHS, True), killed.kills
    num_starts = audit.num_workers // 2
    most = (num_starts - 1) * 2 * SAVED_EVERY
    assert audit.num_steps_replayed <= most, "a checkpoint every four steps, and one that is being written"
    assert digest_weights(killed.job.output) == digest_weights(undisturbed.output), killed.kills
    assert timeless(killed.record) == timeless(read_record(undisturbed)), "losses and error rates agree to the bit"
    assert killed.record.resumed_at
    assert load_checkpoint(killed.job.output / "checkpoint").languages


def test_one_worker_learns_what_two_do(
    local_ray: str, undisturbed: AuditedTraining, tmp_path: Path, in_process: None
) -> None:
    alone = undisturbed.training.model_copy(update={"num_workers": (1, 2)})
    train(TrainJob(data=undisturbed.data, training=alone, output=tmp_path / "alone"))
    record = TrainingRecord.model_validate_json((tmp_path / "alone" / "record.json").read_text(encoding="utf-8"))
    for row, expected in zip(record.rows, read_record(undisturbed).rows, strict=True):
        assert row.step == expected.step
        assert row.validation_loss == pytest.approx(expected.validation_loss, abs=1e-4)
        assert row.training_loss == pytest.approx(expected.training_loss, abs=1e-4)


def timeless(record: TrainingRecord) -> list[EvaluationRow]:
    return [row.model_copy(update={"seconds": 0.0}) for row in record.rows]


def test_a_stopped_worker_is_named_and_replaced(killed: KilledRun) -> None:
    said = " ".join(killed.log.split())  # rich wraps lines
    stuck = r"rank [01] \(process (\d+) on [\d.]+\) has stood still for (\d+) s at step \d+ while [\w ]+"
    (named, seconds), *_ = re.findall(f"{stuck}, its process not even answering; it is killed", said)
    assert not psutil.pid_exists(int(named))
    assert int(seconds) >= STUCK_AFTER_S / 2


def test_all_trackers_hold_each_point_once_although_processes_died(
    killed: KilledRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to read it here
    output = killed.job.output
    points = read_curves(output / CURVES_FILE)
    losses = losses_of(points)
    assert list(losses) == list(range(1, NUM_STEPS + 1))
    assert [point.step for point in points if "validation/wer" in point.values] == [0, EVALUATED_EVERY, NUM_STEPS]
    assert {name for point in points for name in point.values} == TRAINING | VALIDATION
    assert_tensorboard_holds(output / "tensorboard", losses)
    assert_mlflow_holds(output / "mlruns", losses)
    assert_wandb_holds(output / "wandb", losses)


def losses_of(points: tuple[CurvePoint, ...]) -> dict[int, float]:
    return {point.step: point.values["train/loss"] for point in points if "train/loss" in point.values}


def assert_tensorboard_holds(folder: Path, losses: dict[int, float]) -> None:
    events = EventAccumulator(str(folder / "sottovoce"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == TRAINING | VALIDATION
    read = {event.step: event.value for event in events.Scalars("train/loss")}
    assert [event.step for event in events.Scalars("train/loss")] == list(losses)
    assert read == pytest.approx(losses)


def assert_mlflow_holds(folder: Path, losses: dict[int, float]) -> None:
    client = mlflow.MlflowClient(folder.as_uri())
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert (run.info.run_name, run.info.status) == ("killed", "FINISHED")
    assert set(run.data.metrics) == TRAINING | VALIDATION
    assert (run.data.params["num_epochs"], run.data.params["device"]) == (str(NUM_EPOCHS), "cpu")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == list(losses)
    assert {metric.step: metric.value for metric in history} == pytest.approx(losses)


def assert_wandb_holds(folder: Path, losses: dict[int, float]) -> None:
    (file,) = folder.glob("offline-run-*/*.wandb")
    history = read_history(file)
    assert {name for values in history.values() for name in values} == TRAINING | VALIDATION
    assert {step: values["train/loss"] for step, values in history.items() if step} == pytest.approx(losses)
    run_id, project, name, config = read_run(file)
    earlier = list((folder / "superseded").glob(f"offline-run-*-{run_id}"))
    assert earlier
    assert all(one.is_dir() for one in earlier)
    assert (project, name, config["learning_rate"]) == ("sottovoce", "killed", 1e-3)
