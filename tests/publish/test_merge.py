import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from jobs.merge_adapter import MergeJob, main
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import DataSummary, TrainingRecord
from sottovoce.train.worker_model import load_base

UTTERANCES = [Utterance(id="u", audio="a.wav", duration_s=1.0, text="yes")]


@pytest.fixture(scope="module")
def finished_run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run with method lora, without its curves."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    settings = {
        "base": str(tiny_checkpoint),
        "method": "lora",
        "lora": {"rank": 2},
        "learning_rate": 1e-3,
        "num_workers": 2,
    }
    config = TrainingConfig.model_validate(settings)
    checkpoint = load_base(config, UTTERANCES)
    with torch.no_grad():
        for weight in checkpoint.model.parameters():
            if weight.requires_grad:
                weight += 0.1
    save_checkpoint(checkpoint, folder / "checkpoint")
    row = EvaluationRow(
        step=0, epoch=0.0, training_loss=None, validation_loss=1.0, wer=0.5, wer_low=0.4, wer_high=0.6, cer=0.2,
        seconds=1.0,
    )  # fmt: skip
    data = DataSummary(
        num_train=1, train_hours=0.5, num_validation=1, validation_hours=0.5, languages=("en",), num_speakers=0,
        rejects={},
    )  # fmt: skip
    record = TrainingRecord(
        base=config.base, training=config, device="cpu", precision="fp32", data=data, num_parameters=2_000,
        num_trained_parameters=100, num_steps=0, rows=(row,), best_step=0, normalizer="english",
        audio_context_s=(2.0, 10.0), seconds=1.0, audio_s=1.0, resumed_at=(), versions={},
    )  # fmt: skip
    (folder / "record.json").write_text(record.model_dump_json())
    return folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return shutil.copytree(finished_run, tmp_path / "run")


def test_a_merged_checkpoint_is_whole_and_computes_what_the_adapter_does(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "merged"
    main(MergeJob(checkpoint=str(run / "checkpoint"), output=output))
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {one.name for one in output.iterdir()}
    assert not list(output.glob("adapter*"))
    expected = load_checkpoint(run / "checkpoint").model.state_dict()
    for name, weight in load_checkpoint(output).model.state_dict().items():
        assert torch.equal(weight, expected[name])


def test_the_card_of_a_merged_checkpoint_is_that_of_a_whole_model(run: Path, tmp_path: Path) -> None:
    main(MergeJob(checkpoint=str(run / "checkpoint"), output=tmp_path / "merged"))
    card = ModelCard.load(tmp_path / "merged" / "README.md")
    assert card.data.library_name == "transformers"
    assert "by a LoRA adapter" in card.text
    assert "PeftModel" not in card.text


def test_an_adapter_without_its_run_is_merged_without_a_card(run: Path, tmp_path: Path) -> None:
    (run / "record.json").write_text(json.dumps({"not": "ours"}))
    main(MergeJob(checkpoint=str(run / "checkpoint"), output=tmp_path / "merged"))
    assert not (tmp_path / "merged" / "README.md").exists()


def test_a_whole_model_has_nothing_to_merge(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it is a whole model, .* nothing to merge"):
        main(MergeJob(checkpoint=str(tiny_checkpoint), output=tmp_path / "merged"))


def test_a_runs_own_folder_is_not_taken_for_a_model(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json, .* name the folder checkpoint of a run"):
        main(MergeJob(checkpoint=str(run), output=tmp_path / "merged"))


def test_an_existing_output_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        main(MergeJob(checkpoint=str(run / "checkpoint"), output=tmp_path / "merged"))
