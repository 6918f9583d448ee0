"""A trial reports each evaluation to Tune and waits, also if a run is stopped, fails or ends. No Ray is running."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from made_up_trials import make_row

from sottovoce.train.metrics.pruner import Posted, Pruner
from sottovoce.tune import trial as module
from sottovoce.tune.trial import TrialRun

WERS = (0.9, 0.5, 0.3)


def wait_for_verdict(pruner: Pruner, step: int) -> bool:
    while (verdict := pruner.verdict(step)) is None:
        time.sleep(0.001)
    return verdict


def run_to_its_end(pruner: Pruner) -> list[int]:
    """A made-up run: an evaluation every ten steps, posted to the pruner."""
    rows = []
    for place, wer in enumerate(WERS):
        rows.append(make_row(10 * place, wer))
        is_last = place == len(WERS) - 1
        pruner.post(Posted(tuple(rows), is_last))
        if is_last or not wait_for_verdict(pruner, rows[-1].step):
            break
    return [row.step for row in rows]


def run_into_an_error(pruner: Pruner) -> list[int]:
    pruner.post(Posted((make_row(0, 0.9),)))
    wait_for_verdict(pruner, 0)
    raise ValueError("a loss that is no number")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Pruner], list[int]]], tuple[TrialRun, list[int]]]:
    """Start a trial around a made-up run; also return the steps it reached."""

    def start_trial(
        play: Callable[[Pruner], list[int]], cleared: list[str] | None = None
    ) -> tuple[TrialRun, list[int]]:
        pruner, steps = Pruner(), []
        handle = {name: SimpleNamespace(remote=getattr(pruner, name)) for name in ("read", "allow", "stop")}
        monkeypatch.setattr(module, "start_pruner", lambda _name: SimpleNamespace(**handle))
        monkeypatch.setattr(module, "_INTERVAL_S", 0.001)
        monkeypatch.setattr(module.ray, "get", lambda value: value)
        monkeypatch.setattr(module, "build_trainer", lambda _task, _config: None)
        monkeypatch.setattr(module, "replace", lambda run, **_changes: run)
        monkeypatch.setattr(module, "run_training", lambda _run, is_shown: steps.extend(play(pruner)))
        trial: Any = object.__new__(TrialRun)  # Tune's own constructor wants a cluster
        store = SimpleNamespace(clear=lambda: cleared.append("all"))
        monkeypatch.setattr(module, "build_store", lambda _checkpoints, output: store)
        run: Any = SimpleNamespace(task=SimpleNamespace(output=None), config=SimpleNamespace(checkpoints=None))
        trial.setup({"number": 4}, runs={4: run}, keep_checkpoints=cleared is None)
        return trial, steps

    return start_trial


def test_a_trial_reports_every_evaluation_and_ends_with_the_run(start: Any) -> None:
    trial, steps = start(run_to_its_end)
    results = [trial.step() for _ in WERS]
    trial.cleanup()
    assert [result["error_rate"] for result in results] == list(WERS)
    assert [result["evaluation"] for result in results] == [0, 1, 2]
    assert [(result["ends"], result["done"]) for result in results] == [(False, False), (False, False), (True, True)]
    assert steps == [0, 10, 20]


def test_a_pruned_trial_ends_its_run_at_the_evaluation_it_waits_at(start: Any) -> None:
    trial, steps = start(run_to_its_end)
    trial.step()
    trial.step()
    trial.cleanup()
    assert steps == [0, 10]


def test_an_error_of_the_run_is_a_result_too(start: Any) -> None:
    trial, _ = start(run_into_an_error)
    assert trial.step()["error_rate"] == 0.9
    result = trial.step()
    trial.cleanup()
    assert result["error"] == "ValueError: a loss that is no number"
    assert result["done"]
    assert result["evaluation"] == 0


def test_a_run_that_ends_without_its_last_evaluation_is_an_error(start: Any) -> None:
    trial, _ = start(lambda _pruner: [])
    assert trial.step()["error"] == "the run ended without its last evaluation"


@pytest.mark.parametrize(("play", "expected"), [(run_to_its_end, ["all"]), (run_into_an_error, [])])
def test_checkpoints_are_removed_when_a_run_has_ended_and_kept_if_it_failed(
    start: Any, play: Callable[[Pruner], list[int]], expected: list[str]
) -> None:
    cleared: list[str] = []
    trial, _ = start(play, cleared)
    while not trial.step()["done"]:
        pass
    trial.cleanup()
    assert cleared == expected
