import math

from sottovoce.checkpoints.run_state import EvaluationRow, RunState
from sottovoce.train.record import decide, describe_row


def row(wer: float, *, step: int = 0) -> EvaluationRow:
    return EvaluationRow(
        step=step, epoch=1.0, training_loss=0.5, validation_loss=0.25, wer=wer, wer_low=0.0, wer_high=1.0, cer=0.1,
        seconds=1.0,
    )  # fmt: skip


def test_the_base_model_alone_stops_nothing() -> None:
    assert not decide([row(0.9)], patience=1).stops


def test_a_run_stops_after_as_many_evaluations_without_a_lower_wer_as_patience_allows() -> None:
    wers = [0.9, 0.5, 0.6, 0.5, 0.7]
    decisions = [decide([row(wer) for wer in wers[: i + 1]], patience=3) for i in range(len(wers))]
    assert [decision.stops for decision in decisions] == [False, False, False, False, True]
    assert "0.5000 for 3 evaluations" in decisions[-1].reason


def test_a_lower_wer_starts_the_count_again() -> None:
    assert not decide([row(wer) for wer in (0.9, 0.95, 0.8, 0.85)], patience=2).stops


def test_patience_and_lines_read_cer_in_languages_without_spaces() -> None:
    rows = [
        row(wer).model_copy(update={"headline": "cer", "cer": cer})
        for wer, cer in ((0.9, 0.5), (1.0, 0.4), (0.8, 0.45))
    ]
    decision = decide(rows, patience=1)
    assert decision.stops
    assert "CER has not fallen below 0.4000 for 1" in decision.reason


def test_without_patience_a_run_never_stops_early() -> None:
    assert not decide([row(0.1), *[row(0.9)] * 20], patience=None).stops


def test_state_survives_its_file_form() -> None:
    state = RunState(step=3, rows=(row(0.5), row(0.4, step=3)), seconds=1.5)
    assert RunState.model_validate_json(state.model_dump_json()) == state


def test_a_loss_that_is_nan_survives_its_file_form_too() -> None:
    state = RunState(
        step=3, rows=(row(0.5).model_copy(update={"validation_loss": math.nan, "training_loss": math.inf}),)
    )
    (read,) = RunState.model_validate_json(state.model_dump_json()).rows
    assert math.isnan(read.validation_loss)
    assert read.training_loss == math.inf


def test_an_evaluation_reads_as_one_line() -> None:
    assert "step 3 (epoch 1.0): training loss 0.500" in describe_row(row(0.4321, step=3))
    assert "WER 43.2%" in describe_row(row(0.4321))
