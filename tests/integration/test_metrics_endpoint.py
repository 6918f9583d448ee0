"""A run's metrics on Ray's Prometheus endpoint, with its name and each rank's number."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray_metrics import read_metrics, wait_for

from sottovoce.train.metrics.curves import Curves
from sottovoce.train.record import EvaluationRow

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

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


def test_figures_are_on_rays_prometheus_endpoint_with_run_and_rank(local_ray: str, tmp_path: Path) -> None:
    for rank in (0, 1):  # a driver's metrics are exported as a training worker's are
        accelerator = SimpleNamespace(process_index=rank, is_main_process=rank == 0)
        curves = Curves(accelerator, output=tmp_path / "prometheus")
        with curves.opened(None):
            values = {"loss": 0.5, "memory_gib": 2.0, "skipped_steps": 1.0}
            curves.log_training(7, values, learning_rate=1e-4, own={"memory_gib": 2.0 - rank})
            curves.log_validation(EVALUATED)
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
