"""jobs.adapt_context on a real Ray: teacher, distillation, measurement, and the same command again."""

import json
from pathlib import Path

import pytest
import soundfile

from jobs.adapt_context import AdaptJob, main
from sottovoce.data.manifest import read_manifest
from sottovoce.demo.speech import UNSEEN_VOICES, Voice, speak
from sottovoce.recognize.load import load_recognizer
from sottovoce.train.record import TrainingRecord
from sottovoce.tune.adaptation import AdaptationRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SENTENCES = ("One two three.", "Where is my red hat?", "Please close the door.", "The cat is asleep.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, sentence in enumerate(SENTENCES):
        path = tmp_path / "audio" / f"{index}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, speak(sentence, Voice(name=UNSEEN_VOICES[index % 2])), 16_000)
    return tmp_path / "audio"


def test_a_model_is_adapted_measured_and_not_trained_twice(
    local_ray: str, in_process: None, micro_assets: Path, folder: Path, tmp_path: Path
) -> None:
    training = {"base": str(micro_assets), "audio_context_s": (1.0, 10.0), "num_epochs": 1, "device": "cpu"}
    job = AdaptJob.model_validate(
        {
            "speech": {"audio": (folder,), "validation_fraction": 0.3},
            "training": training,
            "batch_size": 2,
            "output": tmp_path / "run",
        }
    )
    main(job)
    made = read_manifest(tmp_path / "run" / "speech" / "manifest.jsonl")
    assert len(made) == len(SENTENCES)
    assert {one.split for one in made} == {"train", "validation"}
    assert {one.language for one in made} == {"en"}
    record = TrainingRecord.model_validate_json((tmp_path / "run" / "record.json").read_bytes())
    assert record.training.method == "adapt_context"
    assert 0 < record.num_trained_parameters < record.num_parameters
    measured = AdaptationRecord.model_validate_json((tmp_path / "run" / "adaptation.json").read_bytes())
    assert measured.find("base, padded").wer == 0.0, "the references are the base model's own texts"
    assert not measured.is_scored_by_people
    context = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())["audio_context_s"]
    assert context == [1.0, 10.0, measured.margin_s]
    assert load_recognizer(tmp_path / "run" / "checkpoint").context.margin_s == measured.margin_s
    main(job)
    again = TrainingRecord.model_validate_json((tmp_path / "run" / "record.json").read_bytes())
    assert again.rows == record.rows
