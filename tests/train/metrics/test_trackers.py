import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from accelerate import Accelerator
from offline_wandb import read_history, read_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sottovoce.errors import TrackerError, TrackerUnavailableError
from sottovoce.train.metrics.curves import CURVES_FILE, Curves, read_curves
from sottovoce.train.metrics.trackers import check_trackers, flatten, tracker_environment

SETTINGS = {
    "learning_rate": 1e-4,
    "spec_augment": {"num_time_masks": 2},
    "audio_context_s": (1.0, 6.0),
    "patience": None,
}


@pytest.fixture(scope="module")
def mlflow() -> ModuleType:
    import mlflow  # takes a second

    return mlflow


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, mlflow: ModuleType) -> Iterator[None]:
    """A user without settings of trackers; what opening them sets in this process is undone."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)
    before = dict(os.environ)
    yield
    mlflow.end_run()
    mlflow.set_tracking_uri(None)
    os.environ.clear()
    os.environ.update(before)


def open_curves(output: Path, tracker: str) -> Curves:
    return Curves(Accelerator(cpu=True), output=output, trackers=(tracker,), hyperparameters=SETTINGS)


def train(curves: Curves, steps: range) -> None:
    for step in steps:
        curves.log_training(step, {"loss": 1.0 / step, "memory_gib": 2.0}, learning_rate=1e-4)


def train_killed_at_5_and_resumed_from_3(output: Path, tracker: str) -> None:
    """Six steps; what is logged at 4 and 5 before the run dies is logged again after it."""
    first = open_curves(output, tracker)
    with first.opened(None):
        train(first, range(1, 6))
    second = open_curves(output, tracker)
    with second.opened(3):
        train(second, range(4, 7))
    assert [point.step for point in read_curves(output / CURVES_FILE)] == [1, 2, 3, 4, 5, 6]


def test_tensorboard_shows_each_point_of_a_resumed_run_once(tmp_path: Path) -> None:
    output = tmp_path / "digits"
    train_killed_at_5_and_resumed_from_3(output, "tensorboard")
    events = EventAccumulator(str(output / "tensorboard" / "sottovoce"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in events.Scalars("train/loss")][3] == pytest.approx(0.25)
    (settings,) = (output / "tensorboard").rglob("hparams.yml")
    assert "spec_augment.num_time_masks: 2" in settings.read_text()


def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(mlflow: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "digits"
    train_killed_at_5_and_resumed_from_3(output, "mlflow")
    client = mlflow.MlflowClient((output / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'sottovoce'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("digits", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1.0 / step) for step in range(1, 7)]
    assert {"train/loss", "train/learning_rate", "train/memory_gib"} == set(run.data.metrics)
    assert run.data.params["spec_augment.num_time_masks"] == "2"
    assert run.data.params["audio_context_s"] == "[1.0, 6.0]"


def test_a_run_that_fails_is_marked_so_in_mlflow(mlflow: ModuleType, tmp_path: Path) -> None:
    def fail_after_a_step() -> None:
        curves = open_curves(tmp_path, "mlflow")
        with curves.opened(None):
            train(curves, range(1, 2))
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_a_step()
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert run.info.status == "FAILED"
    assert run.data.metrics["train/loss"] == 1.0


def test_mlflow_gets_only_the_points_it_lacks_of_a_resumed_run(mlflow: ModuleType, tmp_path: Path) -> None:
    first = open_curves(tmp_path, "tensorboard")
    with first.opened(None):
        train(first, range(1, 4))
    second = open_curves(tmp_path, "mlflow")
    with second.opened(3):
        train(second, range(4, 5))
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert [one.step for one in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3, 4]


def test_the_users_tracking_uri_is_where_mlflow_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "theirs").as_uri())
    curves = open_curves(tmp_path / "run", "mlflow")
    with curves.opened(None):
        train(curves, range(1, 2))
    assert list((tmp_path / "theirs").rglob("loss"))
    assert not (tmp_path / "run" / "mlruns").exists()


@pytest.mark.slow  # wandb takes a second or two to start its own process, twice
def test_wandb_holds_each_point_of_a_resumed_run_once_in_one_file_below_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, home = tmp_path / "digits", tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    train_killed_at_5_and_resumed_from_3(output, "wandb")
    (file,) = (output / "wandb").glob("offline-run-*/*.wandb")
    history = read_history(file)
    assert {step: values["train/loss"] for step, values in history.items()} == {s: 1.0 / s for s in range(1, 7)}
    assert set(history[6]) == {"train/loss", "train/learning_rate", "train/memory_gib"}
    assert list(home.iterdir()) == []
    (earlier,) = (output / "wandb" / "superseded").glob("offline-run-*/*.wandb")
    assert earlier.name == file.name
    run_id, project, name, config = read_run(file)
    assert file.name == f"run-{run_id}.wandb"
    assert (project, name) == ("sottovoce", "digits")
    assert (config["spec_augment.num_time_masks"], config["patience"]) == (2, "null")


def test_a_tracker_that_is_not_installed_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(("tensorboard", "mlflow", "wandb"))
    monkeypatch.setattr("sottovoce.train.metrics.trackers._PACKAGES", {"mlflow": ("mlflow-no-such-package",)})
    with pytest.raises(TrackerUnavailableError, match=r"pip install -c constraints.txt -e '.\[trackers\]'"):
        check_trackers(("mlflow",))


def test_a_tracker_that_does_not_open_stops_a_new_run_and_not_a_resumed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    curves = open_curves(tmp_path, "mlflow")
    with pytest.raises(TrackerError, match="'mlflow' does not open"), curves.opened(None):
        pass
    with curves.opened(3):
        train(curves, range(4, 5))
    assert "the run goes on without it" in caplog.text
    assert [point.step for point in read_curves(tmp_path / CURVES_FILE)] == [4]


def test_a_tracker_that_fails_during_a_run_is_dropped_and_the_run_goes_on(
    mlflow: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise mlflow.exceptions.MlflowException("gone")

    curves = open_curves(tmp_path, "mlflow")
    with caplog.at_level(logging.ERROR), curves.opened(None):
        train(curves, range(1, 2))
        monkeypatch.setattr(mlflow, "log_metrics", fail)
        train(curves, range(2, 4))
    assert caplog.text.count("mlflow failed; the run goes on without it") == 1
    assert [point.step for point in read_curves(tmp_path / CURVES_FILE)] == [1, 2, 3]


def test_a_file_of_ids_that_cannot_be_read_starts_new_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "trackers.json").write_text("{", encoding="utf-8")
    curves = open_curves(tmp_path, "mlflow")
    with curves.opened(None):
        train(curves, range(1, 2))
    assert "trackers start new runs" in caplog.text


def test_workers_get_the_drivers_addresses_and_modes_but_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "made-up")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracker_environment() == {"WANDB_MODE": "online", "MLFLOW_TRACKING_URI": "http://mlflow:5000"}


def test_nested_settings_are_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": True}}, "e": [1, 2], "f": None, "g": "x"}) == {
        "a.b": 1,
        "a.c.d": True,
        "e": "[1, 2]",
        "f": "null",
        "g": "x",
    }
