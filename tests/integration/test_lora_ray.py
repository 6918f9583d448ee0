"""A run with method lora on a real Ray: evaluated as it trains, saved as an adapter, and used by every later stage."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard

from jobs.merge_adapter import MergeJob
from jobs.merge_adapter import main as merge
from jobs.train_whisper import TrainJob, main
from sottovoce.data.dataset import DatasetConfig
from sottovoce.data.manifest import write_manifest
from sottovoce.errors import FourBitUnavailableError
from sottovoce.export.exporter import ExportConfig, export_checkpoint
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.recognize.scoring import score_folder
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LORA = {"rank": 4, "alpha": 8, "token_rows": True}


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Tones; what they are called is their text."""
    made = []
    for i in range(10):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.3 * np.sin(np.arange(16_000 + 1_000 * i) * (0.05 + 0.05 * (i % 2))), 16_000)
        split = "train" if i < 8 else "validation"
        text = ("low", "high")[i % 2]
        made.append(Utterance(id=f"u{i}", audio=str(path), duration_s=1.0 + i / 16, text=text, split=split))
    write_manifest(made, tmp_path / "manifest.jsonl")
    return made


def job_for(tmp_path: Path, base: Path, **training: object) -> TrainJob:
    settings = {"base": str(base), "device": "cpu", "evaluate_every_steps": 4, "num_epochs": 4, "learning_rate": 1e-2}
    return TrainJob(
        data=DatasetConfig(manifest=(tmp_path / "manifest.jsonl",), batch_size=2),
        training=TrainingConfig.model_validate(settings | training),
        output=tmp_path / "run",
    )


def test_an_adapter_is_trained_scored_saved_merged_and_exported(
    local_ray: str, in_process: None, utterances: list[Utterance], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    main(job_for(tmp_path, tiny_checkpoint, method="lora", lora=LORA, gradient_checkpointing=True))
    folder = tmp_path / "run" / "checkpoint"
    record = TrainingRecord.model_validate_json((tmp_path / "run" / "record.json").read_text())
    assert record.rows[-1].validation_loss < record.rows[0].validation_loss
    assert 0 < record.num_trained_parameters < 0.05 * record.num_parameters
    assert (folder / "adapter_model.safetensors").stat().st_size < 0.05 * 4 * record.num_parameters
    assert not (folder / "model.safetensors").exists()
    assert "PeftModel.from_pretrained" in ModelCard.load(folder / "README.md").text
    merge(MergeJob(checkpoint=str(folder), output=tmp_path / "merged"))
    merged = load_checkpoint(tmp_path / "merged").model.state_dict()
    for name, weight in load_checkpoint(folder).model.state_dict().items():
        assert torch.equal(weight, merged[name])

    def score(source: str | Path, variant: str) -> object:
        return score_folder(source, variant, utterances=utterances[8:], normalizer="basic")

    config = ExportConfig(variants=("fp32",), max_wer_rise=1.0)
    report = export_checkpoint(config, folder, tmp_path / "export", score=score)  # type: ignore[arg-type]
    assert report.fp32_max_abs_difference < 1e-3


def test_qlora_without_a_gpu_is_refused_before_anything_starts(
    utterances: list[Utterance], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(FourBitUnavailableError, match="use method=lora"):
        main(job_for(tmp_path, tiny_checkpoint, method="qlora"))
    assert not (tmp_path / "run").exists()
