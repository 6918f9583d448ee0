"""A run on a cluster whose nodes come and go: it shrinks, grows, and learns what it would have learned."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from several_nodes import DRAIN_S, Nodes, running_cluster

from benchmarks.audited_training import (
    AuditedTraining,
    audit_run,
    read_notes,
    start_driver,
    train_killed,
    wait_for_step,
    write_tones,
)
from sottovoce.checkpoints.saver import build_store
from sottovoce.data.dataset import DatasetConfig
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(1800)]

NUM_TRAIN, NUM_EPOCHS, STEPS_PER_EPOCH = 24, 50, 3
SAVED_EVERY, LOGGED_EVERY = 10, 2


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with running_cluster() as nodes:
        yield nodes


def job_for(manifest: Path, base: Path, output: Path, *, pause_s: float, **training: object) -> AuditedTraining:
    settings = {
        "base": str(base),
        "device": "cpu",
        "precision": "fp32",
        "num_workers": (1, 2),
        "accumulation_steps": 1,
        "cpus_per_worker": 2.0,
        "resize_interval_s": 2.0,
        "num_epochs": NUM_EPOCHS,
        "learning_rate": 1e-3,
        "dropout": 0.1,
        "evaluate_every_steps": 50,
        "save_every_steps": SAVED_EVERY,
        "log_every_steps": LOGGED_EVERY,
        "max_failures": 1,
    }
    return AuditedTraining(
        data=DatasetConfig(manifest=(manifest,), batch_size=4, steps_per_task=4),
        training=TrainingConfig.model_validate(settings | training),
        output=output,
        audit=output.with_name(f"{output.name}-audit"),
        pause_s=pause_s,
    )


def record_of(job: AuditedTraining) -> TrainingRecord:
    return TrainingRecord.model_validate_json((job.output / "record.json").read_text(encoding="utf-8"))


def last_step_of(paths: set[Path]) -> int:
    return max(note.step for path in paths for note in read_notes(path) if note.what == "trained")


def saved_steps(job: AuditedTraining) -> set[int]:
    return {saved.step for saved in build_store(None, output=job.output).committed()}


def watch_saves(job: AuditedTraining, seconds: float) -> set[int]:
    """Return the steps of all checkpoints that are there at some time within so many seconds."""
    deadline, found = time.monotonic() + seconds, set[int]()
    while time.monotonic() < deadline:
        found |= saved_steps(job)
        time.sleep(0.1)
    return found


def test_nodes_that_are_lost_come_back_or_are_taken_change_nothing_a_run_learns(
    nodes: Nodes, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    manifest = write_tones(tmp_path, num_train=NUM_TRAIN, num_validation=4)
    nodes.add()
    second = nodes.add()
    job, log = job_for(manifest, tiny_checkpoint, tmp_path / "changing", pause_s=0.2), tmp_path / "driver.log"
    driver = start_driver(job, nodes.environment, log)
    seen: list[set[Path]] = [set()]

    def go_on_until(step: int) -> None:
        wait_for_step(job.audit, step, known=seen[-1], driver=driver, log=log)

    def note_workers() -> set[Path]:
        """The workers that started since this was asked last."""
        seen.append(set(job.audit.glob("*.jsonl")))
        return seen[-1] - seen[-2]

    try:
        go_on_until(SAVED_EVERY + 2)
        assert len(note_workers()) == 2
        nodes.lose(second)
        go_on_until(SAVED_EVERY + 4)
        assert len(note_workers()) == 1, "the run goes on with the worker that is left"
        second = nodes.add()
        go_on_until(0)
        both = note_workers()
        assert len(both) == 2, "and takes the node back in"
        on_schedule = saved_steps(job)
        nodes.announce_end(second)
        saved_ahead = watch_saves(job, DRAIN_S) - on_schedule
        nodes.lose(second)
        go_on_until(0)
        assert len(note_workers()) == 1
        assert driver.wait(timeout=300) == 0, log.read_text(encoding="utf-8")[-4_000:]
    finally:
        driver.kill()
        driver.wait()
    audit = audit_run(
        job.audit, everyone=[f"u{number}" for number in range(NUM_TRAIN)], steps_per_epoch=STEPS_PER_EPOCH
    )
    assert (audit.num_workers, audit.num_disagreeing) == (6, 0)
    assert (audit.num_epochs_exact, audit.is_in_order) == (NUM_EPOCHS, True)
    record = record_of(job)
    assert len(record.resumed_at) == 3
    assert_little_was_wasted(record, last_step=last_step_of(both), saved_ahead=saved_ahead)
    assert_same_losses(
        record, learned_alone(nodes, job_for(manifest, tiny_checkpoint, tmp_path / "alone", pause_s=0.0))
    )


def assert_little_was_wasted(record: TrainingRecord, *, last_step: int, saved_ahead: set[int]) -> None:
    """See that an announced end was a reason to save at once, and that the run went on from there."""
    assert any(step % SAVED_EVERY for step in saved_ahead), "nothing but what is saved anyway"
    assert record.resumed_at[-1] >= max(saved_ahead)
    # Two between looks, and those trained while the last checkpoint was on its way: a slow disk holds it up for longer.
    assert last_step + 1 - record.resumed_at[-1] <= SAVED_EVERY + 3 * LOGGED_EVERY


def learned_alone(nodes: Nodes, job: AuditedTraining) -> TrainingRecord:
    """Train on the one node that is left, undisturbed."""
    train_killed(job, [], environment=nodes.environment, log=job.output.with_suffix(".log"))
    record = record_of(job)
    assert record.resumed_at == ()
    return record


def assert_same_losses(record: TrainingRecord, expected: TrainingRecord) -> None:
    for row, other in zip(record.rows, expected.rows, strict=True):
        assert row.step == other.step
        assert row.validation_loss == pytest.approx(other.validation_loss, abs=1e-4)
        assert row.training_loss == pytest.approx(other.training_loss, abs=1e-4)
