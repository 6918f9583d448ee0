"""Both searches on a real Ray: trials given up, a driver killed, contexts compared; what is done is not repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.search_context import ContextJob
from jobs.search_context import main as search_context
from jobs.search_hyperparameters import SearchJob
from jobs.train_whisper import TrainJob
from sottovoce.config import read_recipe, write_config
from sottovoce.data.dataset import DatasetConfig
from sottovoce.data.manifest import write_manifest
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.context_plan import ContextSearchConfig
from sottovoce.tune.context_record import ContextRecord
from sottovoce.tune.journal import SearchRecord
from sottovoce.tune.space import SearchConfig

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

WAIT_S = 600.0
TRAINING = {"device": "cpu", "num_workers": 1, "log_every_steps": 1, "normalizer": "basic", "trackers": ()}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen tones of 0.5 to 2 s, twelve of them to train on."""
    folder = tmp_path_factory.mktemp("corpus")
    utterances = []
    for i in range(16):
        num_samples = 8_000 + 1_500 * i
        soundfile.write(folder / f"{i}.wav", 0.3 * np.sin(np.arange(num_samples) * (0.05 + 0.02 * (i % 3))), 16_000)
        utterances.append(
            Utterance(
                id=f"u{i}",
                audio=str(folder / f"{i}.wav"),
                duration_s=num_samples / 16_000,
                text=("low", "middle", "high")[i % 3],
                split="train" if i < 12 else "validation",
            )
        )
    write_manifest(utterances, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def read_trial(output: Path, number: int) -> dict[str, object]:
    """A trial's journal as it stands; empty before its first evaluation."""
    path = output / "trials" / f"{number:03d}" / "trial.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def test_a_search_gives_up_what_falls_behind_and_goes_on_after_its_driver_was_killed(
    local_ray: str, manifest: Path, tiny_checkpoint: Path, root: Path, tmp_path: Path
) -> None:
    output, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    job = SearchJob(
        data=DatasetConfig(manifest=manifest, batch_size=4, steps_per_task=2),
        training=TrainingConfig.model_validate(
            TRAINING | {"base": str(tiny_checkpoint), "num_epochs": 6, "evaluate_every_steps": 6, "warmup_steps": 0}
        ),
        # of this seed the first trial soon writes one word a tone, the second goes on babbling: it does not learn
        search=SearchConfig(learning_rate=(1e-8, 0.1), num_trials=2, max_concurrent=1, grace_evaluations=2, seed=12),
        output=output,
    )
    write_config(job, recipe)
    command = [sys.executable, "-m", "jobs.search_hyperparameters", "--config", str(recipe)]
    environment = os.environ | {"RAY_ADDRESS": local_ray, "PYTHONPATH": f"{root / 'platform'}:{root}"}
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + WAIT_S
            while not read_trial(output, 1).get("rows"):
                assert first.poll() is None, (tmp_path / "first.log").read_text(encoding="utf-8")[-4_000:]
                assert time.monotonic() < deadline, "the second trial was never evaluated"
                time.sleep(0.05)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    finished = read_trial(output, 0)
    assert finished["state"] == "finished"
    assert not (output / "search.json").exists()

    second = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert second.returncode == 0, second.stderr[-4_000:]
    assert "searching: 2 trials, 1 ended before, 1 at a time" in second.stderr
    assert read_trial(output, 0) == finished, "a trial that had ended was run again"
    record = SearchRecord.model_validate_json((output / "search.json").read_text(encoding="utf-8"))
    assert not list(output.glob("trials/*/checkpoints/*")), "checkpoints of trials that have ended were left"
    assert [trial.state for trial in record.trials] == ["finished", "pruned"]
    assert [[row.step for row in trial.rows] for trial in record.trials] == [[0, 6, 12, 18], [0, 6, 12]]
    assert record.best == 0
    assert "best: trial 0" in second.stdout
    best = read_recipe(TrainJob, output / "best.yaml")
    assert best.training.learning_rate == record.trials[0].settings.learning_rate
    assert (output / "search.html").is_file()


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
