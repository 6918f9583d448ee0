"""Both searches on a real Ray: trials pruned, contexts compared; what is done is not repeated.

A search whose driver is killed: see ``tests/endurance/test_killed_search.py``.
"""

from pathlib import Path

import pytest
from in_process_training import trials_in_process
from tiny_search import TRAINING, read_search, read_trial, search_job, write_sixteen_tones

from jobs.search_context import ContextJob
from jobs.search_context import main as search_context
from jobs.search_hyperparameters import main as search_hyperparameters
from jobs.train_whisper import TrainJob
from sottovoce.config import read_recipe
from sottovoce.data.dataset import DatasetConfig
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.context_plan import ContextSearchConfig
from sottovoce.tune.context_record import ContextRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sixteen_tones(tmp_path_factory.mktemp("corpus"))


def test_a_search_prunes_what_falls_behind_and_repeats_nothing(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = search_job(manifest, tiny_checkpoint, tmp_path / "out")
    with trials_in_process():
        search_hyperparameters(job)
    record = read_search(job.output)
    assert not list(job.output.glob("trials/*/checkpoints/*")), "checkpoints of trials that have ended were left"
    assert [trial.state for trial in record.trials] == ["finished", "pruned"]
    assert [[row.step for row in trial.rows] for trial in record.trials] == [[0, 6, 12, 18], [0, 6, 12]]
    assert record.best == 0
    assert "best: trial 0" in capsys.readouterr().out
    best = read_recipe(TrainJob, job.output / "best.yaml")
    assert best.training.learning_rate == record.trials[0].settings.learning_rate
    assert (job.output / "search.html").is_file()

    before = [read_trial(job.output, number) for number in (0, 1)]
    search_hyperparameters(job)
    assert [read_trial(job.output, number) for number in (0, 1)] == before, "a trial that had ended was run again"
    assert read_search(job.output).best == 0


def test_contexts_are_trained_exported_scored_and_compared_once(
    local_ray: str,
    in_process: None,
    manifest: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = ContextJob(
        data=DatasetConfig(manifest=manifest, batch_size=4, steps_per_task=2),
        training=TrainingConfig.model_validate(TRAINING | {"base": str(tiny_checkpoint), "num_epochs": 2}),
        search=ContextSearchConfig(split="validation", variants=("fp32",), scoring_repeats=1),
        output=tmp_path / "out",
    )
    search_context(job)
    record = ContextRecord.model_validate_json((job.output / "contexts.json").read_text(encoding="utf-8"))
    assert [result.context_s for result in record.results] == [(30.0, 30.0), (0.5, 2.0)]
    assert [result.num_steps for result in record.results] == [6, 6]
    assert record.results[0].trained_audio_s == pytest.approx(record.results[1].trained_audio_s)
    assert [one.engine for one in record.comparisons] == ["torch", "fp32"]
    assert all(one.training_speedup > 1.0 and one.recognition_speedup > 0.0 for one in record.comparisons)
    assert not list(job.output.rglob("variants.json")), "a record says that a variant passed a gate it never saw"
    assert record.base_context_s == (2.0, 10.0)
    assert record.verdict.startswith("A context of 0.5-2 s instead of 30 s ")
    trained = load_checkpoint(job.output / "0.5-2s" / "seed-0" / "checkpoint")
    assert (trained.context.min_s, trained.context.max_s) == (0.5, 2.0)
    assert (job.output / "contexts.html").is_file()

    before = {path: path.stat().st_mtime_ns for path in job.output.glob("*/seed-0/*/*.safetensors")}
    assert len(before) == 2
    search_context(job)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert caplog.text.count("was trained before") == 2
