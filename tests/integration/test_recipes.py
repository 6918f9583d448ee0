"""Each recipe for a published Whisper runs, through its job, with a narrow random model in the place of the base.

Trained in the test's own process: what differs between recipes are settings of the loop, not of its workers.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from narrow_whisper import save_narrow

from jobs.train_whisper import TrainJob, main
from sottovoce.config import read_recipe
from sottovoce.data.manifest import write_manifest
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.metrics.curves import CURVES_FILE, read_curves
from sottovoce.train.record import TrainingRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

FOLDER = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if "base: openai/" in path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of a second, called something in Portuguese; of four speakers, so that four stay when they are packed."""
    folder = tmp_path_factory.mktemp("corpus")
    utterances = []
    for i in range(6):
        soundfile.write(folder / f"{i}.wav", 0.3 * np.sin(np.arange(16_000) * (0.05 + 0.02 * i)), 16_000)
        split = "train" if i < 4 else "validation"
        text = ("uma voz grave", "uma voz aguda")[i % 2]
        row = {
            "id": f"u{i}",
            "audio": str(folder / f"{i}.wav"),
            "duration_s": 1.0,
            "language": "pt",
            "speaker": f"s{i}",
        }
        utterances.append(Utterance(**row, text=text, split=split))
    write_manifest(utterances, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def fit_to_this_machine(recipe: TrainJob, *, base: Path, manifest: Path, output: Path) -> TrainJob:
    """Keep of a recipe all that a CPU can do in three steps."""
    training = {
        "base": str(base),
        "max_steps": 3,
        "device": "cpu",  # no GPU here
        "precision": "fp32",  # fp16 is refused on a CPU
        "cpus_per_worker": 0.5,  # recipes are for machines with more than the four CPUs of the tests' Ray
        "threads_per_worker": 1,
    }
    if recipe.training.method == "qlora":
        training["method"] = "lora"  # the same adapter; only a GPU holds the base in four bits
    data = {"manifest": (manifest,), "cpus_per_task": 0.25}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=data),
            "training": recipe.training.model_copy(update=training),
            "output": output,
        }
    )


def test_there_is_a_recipe_for_each_purpose() -> None:
    names = {path.stem for path in RECIPES}
    assert names >= {"large_v3_throat_1gpu", "small_medical_1gpu", "small_common_voice_pt_1gpu", "large_v2_lora_8gb"}


def test_the_throat_microphones_settings_are_those_of_record() -> None:
    recipe = read_recipe(TrainJob, FOLDER / "large_v3_throat_1gpu.yaml")
    training = recipe.training
    examples = recipe.data.batch_size * training.num_microbatches
    assert (training.learning_rate, examples, training.max_steps, training.warmup_steps) == (5e-6, 16, 800, 50)
    assert (training.precision, training.evaluate_every_steps, training.seed) == ("fp16", 25, 42)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_three_steps_with_a_narrow_model_of_its_family(
    path: Path, local_ray: str, in_process: None, manifest: Path, micro_assets: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(TrainJob, path)
    narrow = save_narrow(recipe.training.base, micro_assets, tmp_path)
    output = tmp_path / path.stem
    main(fit_to_this_machine(recipe, base=narrow, manifest=manifest, output=output))
    record = TrainingRecord.model_validate_json((output / "record.json").read_text(encoding="utf-8"))
    assert [row.step for row in record.rows] == [0, 3]
    assert record.training.learning_rate == recipe.training.learning_rate
    trained = load_checkpoint(output / "checkpoint")
    assert trained.num_mel_bins == load_checkpoint(narrow).num_mel_bins
    assert trained.model.generation_config.to_dict()["language"] == "pt"
    (point,) = (point for point in read_curves(output / CURVES_FILE) if "train/loss" in point.values)
    assert point.step == 3
    assert np.isfinite(point.values["train/loss"])
    assert point.values["train/skipped_steps"] == 0
