"""A search over two trials on sixteen tones, one of which learns: what its tests in CI and in endurance share."""

import json
from pathlib import Path

import numpy as np
import soundfile

from jobs.search_hyperparameters import SearchJob
from sottovoce.data.dataset import DatasetConfig
from sottovoce.data.manifest import write_manifest
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.journal import SearchRecord
from sottovoce.tune.space import SearchConfig

TRAINING = {"device": "cpu", "num_workers": 1, "log_every_steps": 1, "normalizer": "basic", "trackers": ()}


def write_sixteen_tones(folder: Path) -> Path:
    """Write tones of 0.5 to 2 s, twelve of them to train on, and return their manifest."""
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


def search_job(manifest: Path, base: Path, output: Path) -> SearchJob:
    """Of this seed the first trial soon writes one word a tone; the second does not learn, and is pruned."""
    return SearchJob(
        data=DatasetConfig(manifest=manifest, batch_size=4, steps_per_task=2),
        training=TrainingConfig.model_validate(
            TRAINING | {"base": str(base), "num_epochs": 6, "evaluate_every_steps": 6, "warmup_steps": 0}
        ),
        search=SearchConfig(learning_rate=(1e-8, 0.1), num_trials=2, max_concurrent=1, grace_evaluations=2, seed=12),
        output=output,
    )


def read_trial(output: Path, number: int) -> dict[str, object]:
    """A trial's journal as it stands; empty before its first evaluation."""
    path = output / "trials" / f"{number:03d}" / "trial.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_search(output: Path) -> SearchRecord:
    return SearchRecord.model_validate_json((output / "search.json").read_text(encoding="utf-8"))
