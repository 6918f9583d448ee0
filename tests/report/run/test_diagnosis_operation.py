import pytest
from made_up_runs import healthy_record, make_curve, make_record, make_rows

from sottovoce.report.diagnosis.operation import (
    find_data_wait,
    find_lost_loss_scale,
    find_rejects,
    find_skipped_steps,
    find_unusual_settings,
)

ROWS = make_rows([0.5, 0.3, 0.2, 0.15, 0.14, 0.14])  # 100 steps


@pytest.mark.parametrize("check", [find_data_wait, find_lost_loss_scale, find_skipped_steps])
def test_no_check_of_the_curves_fires_on_a_healthy_run(check) -> None:
    assert check(healthy_record(), ()) is None


@pytest.mark.parametrize(("data_wait_s", "severity"), [(50.0, "note"), (150.0, "warning")])
def test_waiting_for_data_is_given_as_share_and_seconds(data_wait_s: float, severity: str) -> None:
    finding = find_data_wait(make_record(ROWS, data_wait_s=data_wait_s), ())
    assert finding is not None
    assert finding.severity == severity
    assert f"({data_wait_s:.0f} of 500 s)" in finding.seen


def test_a_run_that_waits_is_advised_to_decode_twice_as_much_as_it_did() -> None:
    record = make_record(ROWS, data_wait_s=150.0)
    data = record.data.model_copy(update={"tasks_per_worker": 4, "prefetch_batches": 6})
    finding = find_data_wait(record.model_copy(update={"data": data}), ())
    assert finding is not None
    assert [change.describe() for change in finding.changes] == [
        "data.tasks_per_worker=8 (was 4)",
        "data.prefetch_batches=12 (was 6)",
    ]


def test_an_older_record_that_does_not_say_how_it_decoded_gets_advice_in_words() -> None:
    finding = find_data_wait(make_record(ROWS, data_wait_s=150.0), ())
    assert finding is not None
    assert finding.changes == ()
    assert finding.advice


def test_a_stream_that_only_starts_slowly_is_not_blamed() -> None:
    starts_slowly = make_curve("train/data_wait", [0.9, 0.01, 0.0, 0.02])
    waits_always = make_curve("train/data_wait", [0.9, 0.3, 0.2, 0.4])
    record = make_record(ROWS, data_wait_s=50.0)
    assert find_data_wait(record, starts_slowly) is None
    assert find_data_wait(record, waits_always) is not None


def test_a_wait_counts_by_the_time_it_takes_and_not_by_the_number_of_points() -> None:
    """One interval of twenty waits nine tenths of its time, and takes ten times as long for it."""
    waits = make_curve("train/data_wait", [0.0] * 10 + [0.9] + [0.0] * 10)
    paces = make_curve("train/steps_per_s", [1.0] * 10 + [0.1] + [1.0] * 10)
    record = make_record(ROWS, data_wait_s=150.0)
    assert find_data_wait(record, waits) is None, "a twentieth of the points"
    assert find_data_wait(record, (*waits, *paces)) is not None


def test_skipped_steps_are_counted_with_the_first() -> None:
    finding = find_skipped_steps(make_record(ROWS), make_curve("train/skipped_steps", [0, 0, 2, 3, 3], every=20))
    assert finding is not None
    assert "3 of 100 steps were skipped" in finding.seen
    assert "the first by step 60" in finding.seen
    assert [change.name for change in finding.changes] == ["training.learning_rate"]


def test_without_curves_the_record_counts_the_skipped_steps() -> None:
    finding = find_skipped_steps(make_record(ROWS).model_copy(update={"skipped_steps": 7}), ())
    assert finding is not None
    assert "7 of 100 steps were skipped because a loss or gradient was not finite." in finding.seen


def test_a_few_skipped_steps_are_how_fp16s_scaler_finds_its_scale() -> None:
    curve = make_curve("train/skipped_steps", [5, 5, 5])
    assert find_skipped_steps(make_record(ROWS, precision="fp16"), curve) is None
    many = find_skipped_steps(make_record(ROWS, precision="fp16"), make_curve("train/skipped_steps", [5, 20, 40]))
    assert many is not None
    assert many.changes[1].value == "bf16"


def test_a_loss_scale_below_one_is_serious() -> None:
    curve = make_curve("train/loss_scale", [65_536.0, 512.0, 0.25])
    finding = find_lost_loss_scale(make_record(ROWS, precision="fp16"), curve)
    assert finding is not None
    assert finding.severity == "serious"
    assert "from 65536 to 0.25 at step 15" in finding.seen
    assert find_lost_loss_scale(make_record(ROWS, precision="fp16"), curve[:2]) is None
    assert find_lost_loss_scale(make_record(ROWS), curve) is None


def test_rejects_are_counted_by_reason_and_many_are_a_warning() -> None:
    few = find_rejects(make_record(ROWS, rejects={"silent": 1, "too_long": 2}))
    assert few is not None
    assert few.severity == "note"
    assert "3 recordings (0.6 %) were left out: too long 2, silent 1." in few.seen
    assert "manifest's rejects.jsonl" in few.advice
    assert "training_rejects.jsonl in the run's folder" in few.advice
    many = find_rejects(make_record(ROWS, rejects={"silent": 20}))
    assert many is not None
    assert many.severity == "warning"


def test_without_rejects_there_is_no_finding() -> None:
    assert find_rejects(make_record(ROWS)) is None


def test_warnings_about_settings_at_the_start_are_repeated() -> None:
    record = make_record(ROWS).model_copy(update={"warnings": ("learning_rate 0.1 is far above what is known",)})
    finding = find_unusual_settings(record)
    assert finding is not None
    assert finding.seen == "Learning_rate 0.1 is far above what is known."
    assert find_unusual_settings(make_record(ROWS)) is None
