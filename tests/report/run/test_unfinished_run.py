import json
import logging
from pathlib import Path

import pytest
from made_up_runs import healthy_record, make_record, make_rows

from jobs.report_training import ReportJob, main
from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import STATE_FILE
from sottovoce.errors import ConfigError
from sottovoce.report.run.page import report_run
from sottovoce.schema import Reject
from sottovoce.train.record import RECORD_FILE, STARTED_FILE, TrainingRecord, add_state, read_run, write_started

STATE = RunState(
    step=40,
    rows=make_rows([0.5, 0.3, 0.35]),
    rejects=(Reject(id="a", audio="a.wav", reason="silent", detail=""),),
    seconds=90.0,
    resumed_at=(20,),
)


@pytest.fixture
def started() -> TrainingRecord:
    return make_record((), rejects={"silent": 1, "too_long": 2}, is_finished=False)


def save_state(state: RunState, folder: Path) -> None:
    content = state.model_dump_json().encode()
    store = build_store(None, output=folder)
    store.write({STATE_FILE: [content]}, step=state.step, wer=state.rows[-1].wer, keep_best=1)


def test_a_state_completes_what_was_known_at_the_start(started: TrainingRecord) -> None:
    record = add_state(started, STATE, best_step=20)
    assert record.best.wer == 0.3
    assert record.data.rejects == {"silent": 2, "too_long": 2}
    assert (record.num_steps, record.seconds, record.resumed_at, record.is_finished) == (40, 90.0, (20,), False)
    assert add_state(started, STATE.model_copy(update={"is_finished": True}), best_step=20).is_finished


def test_a_run_that_was_interrupted_is_read_from_its_last_checkpoint(started: TrainingRecord, tmp_path: Path) -> None:
    write_started(started, tmp_path)
    save_state(STATE, tmp_path)
    record = read_run(tmp_path)
    assert (record.num_steps, record.best_step, record.is_finished) == (40, 20, False)


def test_a_run_before_its_first_checkpoint_has_a_record_without_rows(started: TrainingRecord, tmp_path: Path) -> None:
    write_started(started, tmp_path)
    record = read_run(tmp_path)
    assert (record.rows, record.num_steps, record.data) == ((), 0, started.data)


def test_a_finished_runs_own_record_is_what_counts(started: TrainingRecord, tmp_path: Path) -> None:
    write_started(started, tmp_path)
    (tmp_path / RECORD_FILE).write_text(healthy_record().model_dump_json())
    assert read_run(tmp_path) == healthy_record()


def test_a_folder_without_a_run_and_one_of_another_release_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / STARTED_FILE).write_text("{}")
    with pytest.raises(ConfigError, match="written by another release"):
        read_run(tmp_path)


def test_the_report_of_a_running_run_draws_its_curves_and_gives_its_findings(
    started: TrainingRecord, tmp_path: Path
) -> None:
    write_started(started, tmp_path)
    save_state(STATE, tmp_path)
    points = [{"step": step, "train/loss": 2.0 / step} for step in (10, 20, 30)]
    (tmp_path / "curves.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    assert [finding.name for finding in report_run(tmp_path)] == ["rejects"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "This run is not finished." in page
    assert "training, logged" in page


def test_the_job_writes_the_report_and_logs_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = make_record(make_rows([0.20, 0.30, 0.25]))
    (tmp_path / RECORD_FILE).write_text(record.model_dump_json())
    with caplog.at_level(logging.INFO):
        main(ReportJob(run=tmp_path))
    assert (tmp_path / "report.html").is_file()
    assert "Worse than the base: The base model's WER of 20.0 % was never beaten" in caplog.text
