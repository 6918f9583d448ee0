import pytest
from made_up_runs import EVERY, healthy_record, make_group, make_record, make_rows

from sottovoce.report.diagnosis.finding import Finding
from sottovoce.report.diagnosis.groups import compare_groups, find_worse_groups
from sottovoce.report.diagnosis.outcome import (
    find_few_evaluations,
    find_no_gain,
    find_plateau,
    find_rising_loss,
    find_rising_wer,
    find_still_improving,
    find_uncertain_gain,
)
from sottovoce.train.config import TrainingConfig


def settings(finding: Finding | None) -> dict[str, object]:
    assert finding is not None
    return {change.name: change.value for change in finding.changes}


CHECKS = (
    find_few_evaluations,
    find_no_gain,
    find_plateau,
    find_rising_loss,
    find_rising_wer,
    find_still_improving,
    find_uncertain_gain,
    find_worse_groups,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_check_fires_on_a_healthy_run_nor_on_a_base_model_alone(check) -> None:
    assert check(healthy_record()) is None
    assert check(make_record(make_rows([0.5]))) is None


def test_a_run_that_never_beat_its_base_is_serious() -> None:
    finding = find_no_gain(make_record(make_rows([0.20, 0.30, 0.25])))
    assert finding is not None
    assert finding.severity == "serious"
    assert "20.0 % was never beaten: the lowest since is 25.0 % at step 40" in finding.seen
    assert settings(finding) == {"training.learning_rate": 2e-05, "training.method": "frozen_encoder"}


def test_a_run_that_still_goes_on_is_warned_of_not_condemned() -> None:
    finding = find_no_gain(make_record(make_rows([0.20, 0.30]), is_finished=False))
    assert finding is not None
    assert finding.severity == "warning"


def test_a_validation_loss_that_rises_while_wer_falls_is_named_with_both_steps() -> None:
    rows = make_rows([0.60, 0.30, 0.28, 0.26, 0.25], losses=[2.0, 0.80, 0.85, 0.95, 1.0])
    finding = find_rising_loss(make_record(rows))
    assert finding is not None
    assert finding.severity == "note"
    assert "lowest at step 20 (0.800) and 25 % higher at step 80 (1.000)" in finding.seen
    assert "from 30.0 % to 25.0 %" in finding.seen
    assert settings(finding) == {
        "training.patience": 3,
        "training.learning_rate": 5e-05,
        "training.spec_augment.num_time_masks": 2,
    }


@pytest.mark.parametrize(
    ("wers", "losses"),
    [
        pytest.param([0.6, 0.3, 0.25], [2.0, 0.80, 0.83], id="hardly higher"),
        pytest.param([0.6, 0.3, 0.25], [2.0, 0.03, 0.05], id="both near zero"),
        pytest.param([0.6, 0.3, 0.35], [2.0, 0.80, 1.00], id="WER rises too"),
        pytest.param([0.6, 0.3, 0.25], [2.0, 0.80, 0.60], id="both fall"),
    ],
)
def test_a_validation_loss_that_follows_wer_is_not_named(wers: list[float], losses: list[float]) -> None:
    assert find_rising_loss(make_record(make_rows(wers, losses=losses))) is None


def test_wer_that_rises_while_the_training_loss_falls_is_over_fit() -> None:
    rows = make_rows([0.5, 0.3, 0.2, 0.22, 0.25], training_losses=[1.5, 1.0, 0.6, 0.3])
    finding = find_rising_wer(make_record(rows))
    assert finding is not None
    assert "from 20.0 % at step 40 to 25.0 % at step 80" in finding.seen
    assert "from 1.000 to 0.300" in finding.seen
    assert settings(finding)["training.num_epochs"] == 1


def test_a_run_limited_by_steps_is_told_steps() -> None:
    rows = make_rows([0.5, 0.3, 0.2, 0.22, 0.25])
    training = TrainingConfig(max_steps=80, patience=2, method="frozen_encoder")
    assert settings(find_rising_wer(make_record(rows, training=training))) == {
        "training.max_steps": 40,
        "training.learning_rate": 5e-05,
    }


@pytest.mark.parametrize(
    ("wers", "training_losses"),
    [
        pytest.param([0.5, 0.3, 0.2, 0.204, 0.203], None, id="by less than counts"),
        pytest.param([0.5, 0.3, 0.2, 0.25], None, id="once only"),
        pytest.param([0.5, 0.3, 0.2, 0.22, 0.25], [1.5, 0.5, 0.6, 0.9], id="the training loss rises too"),
    ],
)
def test_wer_that_rises_otherwise_is_not_over_fit(wers: list[float], training_losses: list[float] | None) -> None:
    assert find_rising_wer(make_record(make_rows(wers, training_losses=training_losses))) is None


def test_wer_that_stopped_falling_is_named_with_the_step_and_what_came_after() -> None:
    finding = find_plateau(make_record(make_rows([0.6, 0.4, 0.302, 0.30, 0.31, 0.301])))
    assert finding is not None
    assert "since step 40, where it was 30.2 %: 30.0 % at its lowest (step 60), 30.1 % at step 100" in finding.seen
    assert "The 60 steps since took 3 min" in finding.seen
    assert settings(finding) == {"training.patience": 3, "training.num_epochs": 1}


def test_a_run_that_patience_ended_is_told_when_and_nothing_to_change() -> None:
    training = TrainingConfig(patience=3, evaluate_every_steps=EVERY)
    finding = find_plateau(make_record(make_rows([0.6, 0.4, 0.30, 0.31, 0.32, 0.31]), training=training))
    assert finding is not None
    assert "since step 40" in finding.seen
    assert "Patience ended the run" in finding.advice
    assert finding.changes == ()


def test_a_short_standstill_is_not_named() -> None:
    assert find_plateau(make_record(make_rows([0.6, 0.4, 0.30, 0.31, 0.32]))) is None
    long_fall = [0.6 - 0.02 * place for place in range(20)]
    assert find_plateau(make_record(make_rows([*long_fall, 0.22, 0.22, 0.22]))) is None


def test_a_run_that_ends_while_wer_falls_should_train_longer() -> None:
    finding = find_still_improving(make_record(make_rows([0.9, 0.7, 0.5, 0.3, 0.2])))
    assert finding is not None
    assert "from 30.0 % at step 60 to 20.0 % at step 80" in finding.seen
    assert settings(finding) == {"training.num_epochs": 15, "training.patience": 3}


def test_a_run_that_still_goes_on_is_not_told_to_train_longer() -> None:
    assert find_still_improving(make_record(make_rows([0.9, 0.7, 0.5, 0.3, 0.2]), is_finished=False)) is None


def test_a_gain_within_the_intervals_may_be_chance_and_says_how_much_validation_it_takes() -> None:
    finding = find_uncertain_gain(make_record(make_rows([0.30, 0.28], half_width=0.02)))
    assert finding is not None
    assert finding.severity == "warning"
    assert "30.0 % (28.0 to 32.0) to 28.0 % (26.0 to 30.0)" in finding.seen
    assert "on 40 validation utterances" in finding.seen
    assert "about 4.0 times as many" in finding.advice  # intervals of half the width meet no more
    assert settings(finding) == {"prepare.validation_fraction": 0.3}


def test_a_gain_beyond_the_intervals_and_a_loss_are_not_uncertain_gains() -> None:
    assert find_uncertain_gain(make_record(make_rows([0.30, 0.25], half_width=0.02))) is None
    assert find_uncertain_gain(make_record(make_rows([0.30, 0.31], half_width=0.02))) is None


def test_a_tiny_gain_asks_for_more_than_a_hundred_times() -> None:
    finding = find_uncertain_gain(make_record(make_rows([0.30, 0.2999], half_width=0.02)))
    assert finding is not None
    assert "more than a hundred times" in finding.advice


def test_a_long_run_with_two_evaluations_should_have_more() -> None:
    rows = make_rows([0.5, 0.3, 0.2])
    far = tuple(row.model_copy(update={"step": 20 * row.step}) for row in rows)
    training = TrainingConfig(evaluate_every_steps=400)
    finding = find_few_evaluations(make_record(far, training=training))
    assert settings(finding) == {"training.evaluate_every_steps": 80}
    assert find_few_evaluations(make_record(far, training=training, is_finished=False)) is None


def test_a_language_that_got_worse_beyond_doubt_is_serious_and_named() -> None:
    groups = {
        0: (make_group("de", 0.20), make_group("en", 0.50), make_group("fr", 0.30)),
        2: (make_group("de", 0.35), make_group("en", 0.20), make_group("fr", 0.31)),
    }
    finding = find_worse_groups(make_record(make_rows([0.5, 0.4, 0.3], groups=groups)))
    assert finding is not None
    assert finding.severity == "serious"
    assert "language de rose from 20.0 % to 35.0 % (50 utterances) at step 40; 1 more got worse" in finding.seen
    assert settings(finding) == {
        "training.learning_rate": 5e-05,
        "training.method": "frozen_encoder",
    }


def test_a_corpus_that_may_have_got_worse_by_chance_is_a_note() -> None:
    groups = {
        0: (make_group("old", 0.20, kind="corpus", half_width=0.05),),
        1: (make_group("old", 0.22, kind="corpus", half_width=0.05),),
    }
    finding = find_worse_groups(make_record(make_rows([0.5, 0.4], groups=groups)))
    assert finding is not None
    assert finding.severity == "note"
    assert "may be chance" in finding.seen
    assert finding.changes == ()


def test_groups_that_got_better_or_hardly_worse_are_not_named() -> None:
    groups = {0: (make_group("de", 0.20), make_group("en", 0.5)), 1: (make_group("de", 0.204), make_group("en", 0.2))}
    record = make_record(make_rows([0.5, 0.4], groups=groups))
    assert find_worse_groups(record) is None
    assert [round(one.rise, 3) for one in compare_groups(record)] == [0.004, -0.3]
    assert [one.is_certain for one in compare_groups(record)] == [False, True]
