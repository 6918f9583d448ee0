"""A run's figures where people look for them: in trackers, through the death of a worker, and on Ray's endpoint."""

import threading
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import ray
from offline_wandb import read_history, read_run
from ray_metrics import read_metrics, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tone_training import kill_one_training_worker, read_record, tone_job, wait_for_step

from jobs.train_whisper import main
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.train.metrics.curves import CURVES_FILE, Curves, read_curves

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

NUM_STEPS = 120
KILL_AFTER = 8
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
EVALUATED = EvaluationRow(
    step=7,
    epoch=1.0,
    training_loss=0.5,
    validation_loss=1.5,
    wer=0.25,
    wer_low=0.2,
    wer_high=0.3,
    cer=0.125,
    seconds=1.0,
)


def test_all_trackers_hold_each_point_once_after_a_worker_was_killed(
    local_ray: str,
    tones: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to read it here
    output = tmp_path / "tones"
    trackers = ("tensorboard", "mlflow", "wandb")
    job = tone_job(
        tones,
        tiny_checkpoint,
        output,
        num_epochs=NUM_STEPS // 3,
        evaluate_every_steps=NUM_STEPS // 2,
        save_every_steps=4,
        trackers=trackers,
    )

    def kill() -> None:
        wait_for_step(output, KILL_AFTER)
        kill_one_training_worker()

    killer = threading.Thread(target=kill)
    killer.start()
    main(job)
    killer.join()
    assert read_record(output).resumed_at
    points = read_curves(output / CURVES_FILE)
    losses = {point.step: point.values["train/loss"] for point in points if "train/loss" in point.values}
    assert list(losses) == list(range(1, NUM_STEPS + 1))
    assert [point.step for point in points if "validation/wer" in point.values] == [0, NUM_STEPS // 2, NUM_STEPS]
    assert {name for point in points for name in point.values} == TRAINING | VALIDATION
    check_tensorboard(output / "tensorboard", losses)
    check_mlflow(output / "mlruns", losses)
    check_wandb(output / "wandb", losses)


def check_tensorboard(folder: Path, losses: dict[int, float]) -> None:
    events = EventAccumulator(str(folder / "sottovoce"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == TRAINING | VALIDATION
    read = {event.step: event.value for event in events.Scalars("train/loss")}
    assert [event.step for event in events.Scalars("train/loss")] == list(losses)
    assert read == pytest.approx(losses)


def check_mlflow(folder: Path, losses: dict[int, float]) -> None:
    client = mlflow.MlflowClient(folder.as_uri())
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert (run.info.run_name, run.info.status) == ("tones", "FINISHED")
    assert set(run.data.metrics) == TRAINING | VALIDATION
    assert (run.data.params["num_epochs"], run.data.params["device"]) == (str(NUM_STEPS // 3), "cpu")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == list(losses)
    # the step at which the worker died may have been logged by it, and computed again after it: alike, not equal
    assert {metric.step: metric.value for metric in history} == pytest.approx(losses, rel=1e-3)


def check_wandb(folder: Path, losses: dict[int, float]) -> None:
    (file,) = folder.glob("offline-run-*/*.wandb")
    history = read_history(file)
    assert {name for values in history.values() for name in values} == TRAINING | VALIDATION
    assert {step: values["train/loss"] for step, values in history.items() if step} == pytest.approx(losses)
    run_id, project, name, config = read_run(file)
    (earlier,) = (folder / "superseded").glob(f"offline-run-*-{run_id}")
    assert earlier.is_dir()
    assert (project, name, config["learning_rate"]) == ("sottovoce", "tones", 1e-4)


def test_figures_are_on_rays_prometheus_endpoint_with_run_and_rank(local_ray: str, tmp_path: Path) -> None:
    @ray.remote(num_cpus=0)
    class Rank:
        """Keeps the metrics of one rank alive, as a training worker does."""

        def __init__(self, rank: int) -> None:
            accelerator = SimpleNamespace(process_index=rank, is_main_process=rank == 0)
            self.curves = Curves(accelerator, output=tmp_path / "prometheus")

        def log(self, loss: float, memory_gib: float) -> None:
            with self.curves.opened(None):
                values = {"loss": loss, "memory_gib": 2.0, "skipped_steps": 1.0}
                self.curves.log_training(7, values, learning_rate=1e-4, own={"memory_gib": memory_gib})
                self.curves.log_validation(EVALUATED)

    ranks = [Rank.remote(rank) for rank in (0, 1)]
    ray.get([rank.log.remote(0.5, 2.0 - number) for number, rank in enumerate(ranks)])
    training = ("loss", "memory_gib", "skipped_steps", "learning_rate")
    names = [f"train_{name}" for name in training] + [f"validation_{name}" for name in ("loss", "wer", "cer")]
    figures = read_figures(run="prometheus", expected={(name, rank) for name in names for rank in ("0", "1")})
    assert {rank: figures["train_loss", rank] for rank in ("0", "1")} == {"0": 0.5, "1": 0.5}
    assert {rank: figures["train_memory_gib", rank] for rank in ("0", "1")} == {"0": 2.0, "1": 1.0}
    assert figures["train_learning_rate", "0"] == 1e-4
    assert [figures[f"validation_{name}", "0"] for name in ("loss", "wer", "cer")] == [1.5, 0.25, 0.125]


def read_figures(*, run: str, expected: set[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Read Ray's endpoint until the figures of a run are there; by name and rank."""

    def figures() -> dict[tuple[str, str], float]:
        return {
            (metric.name.removeprefix("ray_sottovoce_"), metric.tags["rank"]): metric.value
            for metric in read_metrics()
            if metric.name.startswith("ray_sottovoce_") and metric.tags.get("run") == run
        }

    return wait_for(figures, lambda found: expected <= set(found))
