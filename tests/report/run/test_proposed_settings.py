"""Settings that findings and errors propose: the same command accepts them, or the text asks for a new run."""

import re
from pathlib import Path

import pytest
from test_diagnosis import random_run

from jobs.train_whisper import TrainJob
from sottovoce import errors
from sottovoce.data.dataset import DatasetConfig
from sottovoce.errors import ConfigError, SottovoceError
from sottovoce.report.diagnosis.finding import Finding, SettingChange
from sottovoce.train.config import CHANGEABLE, TrainingConfig
from sottovoce.train.health import failure
from sottovoce.train.run import claim_output

NEW_RUN = re.compile(r"Start a new run with (.*?)\.(?: Resume|$)")
RESUMED = re.compile(r"Resume this run, or start a new one, with (.*?)\.$")
DATA_WAIT = Finding(
    name="data_wait",
    severity="note",
    seen="Workers waited.",
    advice="Decode more at a time.",
    changes=(SettingChange(name="data.tasks_per_worker", value=2, before=1),),
)


def all_findings() -> list[Finding]:
    return [DATA_WAIT, *(finding for seed in range(300) for finding in random_run(seed))]


def with_setting(job: TrainJob, name: str, value: object) -> TrainJob:
    """Set ``training.x`` or ``data.x``, as the command line does."""
    stage, *path = name.split(".")
    settings = job.model_dump(mode="json")
    part = settings[stage]
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return TrainJob.model_validate(settings)


def test_every_proposed_setting_is_accepted_on_resume_or_comes_with_a_new_run() -> None:
    findings = [finding for finding in all_findings() if finding.changes]
    assert len({finding.name for finding in findings}) >= 10
    seen: set[str] = set()
    for finding in findings:
        said = finding.describe()
        new_run, resumed = NEW_RUN.search(said), RESUMED.search(said)
        for change in finding.changes:
            where = new_run if change.needs_new_run else resumed
            assert where is not None, said
            assert change.describe() in where[1], said
            seen.add(change.name)
            if change.name.startswith("prepare."):
                assert change.needs_new_run, "another manifest is another run"
    assert {"data.tasks_per_worker", "training.learning_rate", "training.method"} <= seen


@pytest.mark.parametrize("name", ["data.tasks_per_worker", "data.prefetch_batches", "training.stuck_after_s"])
def test_the_same_command_accepts_a_setting_that_needs_no_new_run(tmp_path: Path, name: str) -> None:
    job = TrainJob(data=DatasetConfig(manifest=(Path("m.jsonl"),)), output=tmp_path)
    claim_output(job, tmp_path, may_change=CHANGEABLE)
    claim_output(with_setting(job, name, 7), tmp_path, may_change=CHANGEABLE)
    assert not SettingChange(name=name, value=7).needs_new_run


@pytest.mark.parametrize("name", ["training.learning_rate", "training.warmup_steps", "training.patience"])
def test_the_same_command_refuses_a_setting_that_needs_a_new_run(tmp_path: Path, name: str) -> None:
    job = TrainJob(data=DatasetConfig(manifest=(Path("m.jsonl"),)), output=tmp_path)
    claim_output(job, tmp_path, may_change=CHANGEABLE)
    with pytest.raises(ConfigError, match="other settings"):
        claim_output(with_setting(job, name, 7), tmp_path, may_change=CHANGEABLE)
    assert SettingChange(name=name, value=7).needs_new_run


def test_another_precision_needs_a_new_run_although_auto_may_be_spelled_out() -> None:
    assert SettingChange(name="training.precision", value="bf16", before="fp16").needs_new_run
    assert "training.precision" in CHANGEABLE


def test_every_setting_that_an_error_proposes_is_changeable_or_the_error_asks_for_another_folder() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, SottovoceError)]
    sentences = [one.sentence for one in classes if hasattr(one, "sentence")]
    sentences += [value for value in vars(failure).values() if isinstance(value, str)]
    fields = {f"training.{name}" for name in TrainingConfig.model_fields if "_" in name}
    fields |= {f"data.{name}" for name in DatasetConfig.model_fields if "_" in name}
    named = 0
    for sentence in sentences:
        settings = {
            field for field in fields if re.search(rf"(?<![\w.]){field.partition('.')[2]}\b|{field}\b", sentence)
        }
        named += len(settings)
        assert settings <= CHANGEABLE or "another output folder" in sentence, f"{settings - CHANGEABLE}: {sentence}"
    assert named >= 6, "the sentences name settings"
