"""Does training end with the very weights it would have had, when its workers and drivers are killed as it goes?

``python -m benchmarks.training_kills --output FILE`` trains one small model undisturbed, then 20 times again, each time
with five processes killed by SIGKILL at random steps: workers, and now and then the driver. It compares the SHA-256 of
the weights each run ended with, and goes through what every worker wrote down of the utterances it trained on.
"""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import ray
from pydantic import Field

from benchmarks.audited_training import (
    AuditedTraining,
    Kill,
    Victim,
    audit_run,
    digest_weights,
    draw_kills,
    train_audited,
    train_killed,
    write_tones,
)
from benchmarks.clips import save_random_model
from benchmarks.common import Row, print_table, write_result
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.data.dataset import DatasetConfig
from sottovoce.model.audio_context import AudioContext
from sottovoce.train.config import TrainingConfig

logger = logging.getLogger("sottovoce.benchmarks.training_kills")  # shown by setup_logging, as the package is

_NUM_TRAIN, _NUM_VALIDATION = 48, 2
_BATCH_SIZE = 2
_STEPS_PER_EPOCH = 12  # 48 utterances, two workers
_NUM_EPOCHS = 5
_SAVED_EVERY = 5


class TrainingKills(Config):
    """How many runs, and how many deaths in each."""

    num_runs: int = Field(default=20, ge=1)
    num_kills: int = Field(default=5, ge=2)
    """In each run; one is the driver's, the others are workers'."""
    num_cpus: int = Field(default=4, ge=1)
    """What the Ray that is started counts with; its work fits two cores."""
    seed: int = 0
    """Of the steps at which somebody dies."""
    output: Path
    """JSON file that receives the result."""


def main(settings: TrainingKills) -> None:
    """Run it and write its result."""
    setup_logging()
    ray.init(address="local", num_cpus=settings.num_cpus, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder), settings, address=ray.get_runtime_context().gcs_address)
    ray.shutdown()
    write_result(settings.output, "Does a run whose processes are killed end with the weights of one left alone?", rows)
    print_table("Training runs killed with SIGKILL at random steps", rows)


def compare(folder: Path, settings: TrainingKills, *, address: str) -> list[Row]:
    """Train undisturbed, then disturbed; the first line of the result sums up all runs."""
    manifest = write_tones(folder, num_train=_NUM_TRAIN, num_validation=_NUM_VALIDATION)
    save_random_model(folder / "model", "narrow", context=AudioContext(min_s=2.0, max_s=10.0), seed=0)
    undisturbed = describe_job(manifest, folder / "model", folder / "undisturbed")
    started = time.monotonic()
    train_audited(undisturbed)
    undisturbed_s, expected = time.monotonic() - started, digest_weights(undisturbed.output)
    rows = [
        train_one(
            describe_job(manifest, folder / "model", folder / f"run-{number}"),
            draw_kills(
                _victims(settings.num_kills), num_steps=_NUM_EPOCHS * _STEPS_PER_EPOCH, seed=settings.seed + number
            ),
            address=address,
            expected=expected,
        )
        for number in range(settings.num_runs)
    ]
    return [sum_up(rows, undisturbed_s=undisturbed_s), *rows]


def _victims(num_kills: int) -> list[Victim]:
    workers: list[Victim] = ["worker"] * (num_kills - 1)
    return ["driver", *workers]


def describe_job(manifest: Path, model: Path, output: Path) -> AuditedTraining:
    """Return a run of 60 steps with a checkpoint every five, and all that is random switched on."""
    return AuditedTraining(
        data=DatasetConfig(manifest=(manifest,), batch_size=_BATCH_SIZE, steps_per_task=8),
        training=TrainingConfig(
            base=str(model),
            device="cpu",
            precision="fp32",
            num_workers=2,
            num_epochs=_NUM_EPOCHS,
            learning_rate=1e-4,
            dropout=0.1,
            evaluate_every_steps=_NUM_EPOCHS * _STEPS_PER_EPOCH,
            save_every_steps=_SAVED_EVERY,
            max_failures=100,
            trackers=(),
        ),
        output=output,
        audit=output.with_name(f"{output.name}-audit"),
    )


def train_one(job: AuditedTraining, kills: Sequence[Kill], *, address: str, expected: str) -> Row:
    """Train once through some deaths, and look at what came out."""
    started = time.monotonic()
    train_killed(job, kills, environment=os.environ | {"RAY_ADDRESS": address}, log=job.audit.with_suffix(".log"))
    seconds = time.monotonic() - started
    everyone = [f"u{number}" for number in range(_NUM_TRAIN)]
    audit = audit_run(job.audit, everyone=everyone, steps_per_epoch=_STEPS_PER_EPOCH)
    row: Row = {
        "run": job.output.name,
        "kills": len(kills),
        "of_drivers": sum(kill.victim == "driver" for kill in kills),
        "at_steps": " ".join(f"{kill.victim[0]}{kill.step}" for kill in kills),
        "seconds": round(seconds, 1),
        "workers": audit.num_workers,
        "steps_replayed": audit.num_steps_replayed,
        "weights_identical": digest_weights(job.output) == expected,
        "each_utterance_once_an_epoch": audit.num_epochs_exact == _NUM_EPOCHS and audit.is_in_order,
        "batches_that_differ_when_read_again": audit.num_disagreeing,
    }
    logger.info("%s", row)
    return row


def sum_up(rows: Sequence[Row], *, undisturbed_s: float) -> Row:
    """Add the runs up."""

    def total(name: str) -> int:
        return int(sum(float(str(row[name])) for row in rows))

    def share(name: str) -> str:
        return f"{sum(bool(row[name]) for row in rows)} of {len(rows)}"

    return {
        "run": "all",
        "kills": total("kills"),
        "of_drivers": total("of_drivers"),
        "seconds": total("seconds"),
        "seconds_undisturbed": round(undisturbed_s, 1),
        "workers": total("workers"),
        "steps_replayed": total("steps_replayed"),
        "steps_replayed_per_kill": round(total("steps_replayed") / total("kills"), 2),
        "steps_between_checkpoints": _SAVED_EVERY,
        "weights_identical": share("weights_identical"),
        "each_utterance_once_an_epoch": share("each_utterance_once_an_epoch"),
        "batches_that_differ_when_read_again": total("batches_that_differ_when_read_again"),
    }


if __name__ == "__main__":
    main(load_config(TrainingKills))
