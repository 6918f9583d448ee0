"""A trial's journal is written atomically, read back, and never mixed with other settings."""

from pathlib import Path

import pytest
from made_up_trials import make_row, make_trial

from sottovoce.errors import CheckpointError, SearchError
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.journal import (
    Trial,
    build_record,
    last_line,
    rank_trials,
    read_trials,
    trial_folder,
    write_trial,
)
from sottovoce.tune.space import SearchConfig


def test_a_journal_reads_back_unchanged_and_a_trial_without_one_waits(tmp_path: Path) -> None:
    trials = [make_trial(0, [0.9, 0.5]), make_trial(1, [])]
    write_trial(trials[0], tmp_path)
    read = read_trials(tmp_path, tuple(trial.settings for trial in trials))
    assert read[0] == trials[0]
    assert read[1] == Trial(number=1, settings=trials[1].settings, state="waiting")


def test_a_journal_of_release_0_1_has_another_word_for_pruned(tmp_path: Path) -> None:
    trial = make_trial(0, [0.9, 0.5], state="pruned")
    write_trial(trial, tmp_path)
    path = trial_folder(tmp_path, 0) / "trial.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"pruned"', '"given_up"'), encoding="utf-8")
    assert read_trials(tmp_path, (trial.settings,)) == (trial,)


def test_a_journal_of_other_settings_is_refused(tmp_path: Path) -> None:
    write_trial(make_trial(0, [0.9]), tmp_path)
    with pytest.raises(CheckpointError, match=r"other settings \(learning rate 1.00e-03"):
        read_trials(tmp_path, (make_trial(1, []).settings,))


def test_a_damaged_journal_is_refused_by_name(tmp_path: Path) -> None:
    trial = make_trial(0, [0.9])
    write_trial(trial, tmp_path)
    path = trial_folder(tmp_path, 0) / "trial.json"
    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"trial\.json cannot be read; delete that folder"):
        read_trials(tmp_path, (trial.settings,))


def test_the_evaluations_of_a_resumed_trial_replace_those_it_repeats() -> None:
    trial = make_trial(0, [0.9, 0.7, 0.5], state="failed", error="it died")
    resumed = trial.with_row(make_row(10, 0.6))
    assert [(row.step, row.wer) for row in resumed.rows] == [(0, 0.9), (10, 0.6)]
    assert (resumed.state, resumed.error) == ("running", None)


def test_the_evaluation_of_the_base_model_is_never_the_best() -> None:
    best = make_trial(0, [0.1, 0.7, 0.5]).best
    assert best is not None
    assert best.wer == 0.5
    assert make_trial(0, [0.1]).best is None


def test_trials_are_ranked_by_wer_then_by_loss_and_those_that_failed_come_last() -> None:
    lossy = make_trial(1, [], rows=(make_row(10, 0.3, loss=0.9),))
    even = make_trial(2, [], rows=(make_row(10, 0.3, loss=0.2),))
    failed = [make_trial(0, [0.9], state="failed"), make_trial(4, [0.9, 0.1], state="failed")]
    trials = [failed[0], lossy, even, make_trial(3, [0.9, 0.2], state="pruned"), failed[1]]
    assert [trial.number for trial in rank_trials(trials)] == [3, 2, 1, 4, 0]


def test_trials_are_ranked_by_cer_in_languages_without_spaces() -> None:
    rows = [
        make_row(10, wer).model_copy(update={"headline": "cer", "cer": cer}) for wer, cer in ((0.8, 0.3), (0.9, 0.2))
    ]
    trials = [make_trial(number, [], rows=(row,)) for number, row in enumerate(rows)]
    assert [trial.number for trial in rank_trials(trials)] == [1, 0]


def test_a_failed_trial_is_never_the_best_however_low_its_wer_was() -> None:
    trials = [make_trial(0, [0.9, 0.1], state="failed", error="died"), make_trial(1, [0.9, 0.5])]
    assert build_record(SearchConfig(), TrainingConfig(), trials).best == 1


def test_a_search_whose_trials_all_failed_has_no_best_one() -> None:
    trials = [make_trial(number, [0.9, 0.1], state="failed", error="Traceback\nValueError: no") for number in (0, 1)]
    with pytest.raises(SearchError, match=r"only 0 of 2 trials .* all failed, trial 0 with ValueError: no; the same"):
        build_record(SearchConfig(), TrainingConfig(), trials)


def test_a_record_names_the_best_trial_and_adds_up_its_cost() -> None:
    trials = [make_trial(0, [0.9, 0.5, 0.6]), make_trial(1, [0.9, 0.4], state="pruned")]
    record = build_record(SearchConfig(), TrainingConfig(), trials)
    assert (record.best, record.num_steps, record.seconds) == (1, 20, 60.0)


def test_the_last_line_of_a_traceback_says_what_happened() -> None:
    assert last_line("Traceback\n  File\nValueError: no\n\n") == "ValueError: no"
    assert last_line(None) == "no message"
