"""Pruning of trials, and their journals; no Ray is running here."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_up_trials import make_row, make_trial
from ray.tune.schedulers import TrialScheduler

from sottovoce.train.config import TrainingConfig
from sottovoce.tune.journal import SEARCH_FILE, SearchRecord, Trial, read_trials, write_trial
from sottovoce.tune.space import SearchConfig
from sottovoce.tune.tuner import JournalCallback, Search, build_scheduler, count_concurrent, run_search


def decide(decided: list[Trial], wers: list[float], **settings: object) -> list[str]:
    """Return the scheduler's decision after each evaluation of a trial, after other trials have ended."""
    scheduler = build_scheduler(SearchConfig.model_validate(settings), decided)
    trial: Any = SimpleNamespace(trial_id="new")
    controller: Any = None
    scheduler.on_trial_add(controller, trial)
    results = [{"evaluation": index, "error_rate": wer} for index, wer in enumerate(wers)]
    return [scheduler.on_trial_result(controller, trial, result) for result in results]


GO, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
GOOD = [make_trial(0, [0.9, 0.5, 0.3]), make_trial(1, [0.9, 0.6], state="pruned")]


def test_a_trial_worse_than_those_before_a_kill_is_pruned_after_its_grace() -> None:
    assert decide(GOOD, [0.9, 0.8]) == [GO, STOP]
    assert decide(GOOD, [0.9, 0.8], grace_evaluations=2) == [GO, GO]


def test_a_trial_as_good_as_the_best_continues() -> None:
    assert decide(GOOD, [0.9, 0.5, 0.4, 0.4]) == [GO, GO, GO, GO]


def test_without_others_every_trial_continues() -> None:
    assert decide([], [0.9, 0.95, 0.99, 1.0]) == [GO] * 4


@pytest.mark.parametrize(
    ("resources", "uses_gpu", "expected"),
    [
        ({"CPU": 2.0}, False, 1),
        ({"CPU": 8.0}, False, 4),
        ({"CPU": 100.0}, False, 6),  # there are no more
        ({"CPU": 64.0, "GPU": 4.0}, True, 2),
        ({"CPU": 0.5}, False, 1),
    ],
)
def test_as_many_trials_run_at_a_time_as_the_cluster_has_room_for(
    resources: dict[str, float], uses_gpu: bool, expected: int
) -> None:
    training = TrainingConfig(num_workers=2, cpus_per_worker=0.5)
    assert count_concurrent(training, uses_gpu=uses_gpu, num_trials=6, resources=resources) == expected


def test_the_journals_distinguish_finished_pruned_and_failed_trials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = [make_trial(number, [], state="waiting") for number in range(3)]
    callback = JournalCallback(fresh, tmp_path)

    def result(number: int, **values: object) -> None:
        callback.on_trial_result(0, [], _tune_trial(number), dict(values))

    with caplog.at_level(logging.INFO, "sottovoce"):
        for number in range(3):
            result(number, row=make_row(0, 0.9).model_dump(mode="json"), ends=False, done=False)
        result(0, row=make_row(10, 0.5).model_dump(mode="json"), ends=True, done=True)
        result(1, row=make_row(10, 0.8).model_dump(mode="json"), ends=False, done=True)
        result(2, error="Traceback\nValueError: broken", done=True)
    read = read_trials(tmp_path, tuple(trial.settings for trial in fresh))
    assert [trial.state for trial in read] == ["finished", "pruned", "failed"]
    assert [len(trial.rows) for trial in read] == [2, 2, 1]
    assert "trial 1 pruned, best WER 80.0% at step 10; 2 of 3 trials have ended" in caplog.text
    assert "trial 2 failed (ValueError: broken); 3 of 3 trials have ended" in caplog.text


def test_evaluations_that_a_resumed_trial_repeats_are_not_logged_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = JournalCallback([make_trial(0, [0.9, 0.5], state="running")], tmp_path)
    with caplog.at_level(logging.INFO, "sottovoce"):
        for row in (make_row(0, 0.9), make_row(10, 0.5), make_row(20, 0.4)):
            callback.on_trial_result(0, [], _tune_trial(0), {"row": row.model_dump(mode="json"), "ends": False})
    assert [record.getMessage().count("evaluation at step 20") for record in caplog.records] == [1]


def test_a_trial_whose_process_died_is_recorded_with_the_error_from_ray(tmp_path: Path) -> None:
    error_file = tmp_path / "error.txt"
    error_file.write_text("Traceback\nActorDiedError: out of memory\n", encoding="utf-8")
    fresh = [make_trial(number, [], state="waiting") for number in range(2)]
    callback = JournalCallback(fresh, tmp_path)
    callback.on_trial_error(0, [], _tune_trial(0, error_file=str(error_file)))
    callback.on_trial_error(0, [], _tune_trial(1))
    errors = [trial.error or "" for trial in read_trials(tmp_path, tuple(trial.settings for trial in fresh))]
    assert "out of memory" in errors[0]
    assert errors[1] == "its process died"


def test_the_search_file_is_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for trial in GOOD:
        write_trial(trial, tmp_path)
    search = Search(SearchConfig(), TrainingConfig(), tuple(trial.settings for trial in GOOD), {}, tmp_path)
    (tmp_path / SEARCH_FILE).write_text("before", encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_search(search)
    assert (tmp_path / SEARCH_FILE).read_text(encoding="utf-8") == "before"
    assert run_search(search).best == 0
    assert SearchRecord.model_validate_json((tmp_path / SEARCH_FILE).read_text(encoding="utf-8")).best == 0


def _interrupt(_path: Path, _target: Path) -> None:
    raise KeyboardInterrupt


def _tune_trial(number: int, *, error_file: str | None = None) -> Any:
    return SimpleNamespace(config={"number": number}, error_file=error_file)
