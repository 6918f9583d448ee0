import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sottovoce.errors import CheckpointError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import load_checkpoint, read_model_config, save_checkpoint


def _copy(source: Path, target: Path, *, leave_out: str = "") -> Path:
    target.mkdir()
    for file in source.iterdir():
        if file.is_file() and file.name != leave_out:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_saved_checkpoint_loads_with_equal_weights_and_context(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(tiny_checkpoint)
    save_checkpoint(first, tmp_path / "again")
    second = load_checkpoint(tmp_path / "again")
    assert second.context == AudioContext(2.0, 10.0)
    for name, weight in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], weight, rtol=0, atol=0)


def test_every_file_a_consumer_needs_is_saved(tiny_checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(load_checkpoint(tiny_checkpoint), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {
        "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "vocab.json",
        "merges.txt", "normalizer.json", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json",
        "model.safetensors",
    } <= names  # fmt: skip
    assert "proj_out.weight" not in load_file(tmp_path / "model.safetensors")  # tied: stored once


def test_keys_that_can_run_code_are_dropped_from_the_config(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "evil")
    values = json.loads((folder / "config.json").read_text())
    values |= {"_attn_implementation_internal": "someone/kernel", "auto_map": {"AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(values))
    config = read_model_config(folder)
    assert not hasattr(config, "auto_map")
    assert config._attn_implementation_internal != "someone/kernel"
    load_checkpoint(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "generation_config.json"])
def test_a_missing_file_raises_checkpoint_error_naming_the_folder(
    tiny_checkpoint: Path, tmp_path: Path, missing: str
) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "part", leave_out=missing)
    with pytest.raises(CheckpointError, match="part"):
        load_checkpoint(folder)


def test_a_folder_without_a_tokenizer_raises_checkpoint_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "part", leave_out="tokenizer.json")
    (folder / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match="part"):
        load_checkpoint(folder)


def test_damaged_weights_raise_checkpoint_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "cut")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="cut"):
        load_checkpoint(folder)


def test_weights_that_lack_a_tensor_are_refused_by_its_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "part")
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"part: .* lack model\.decoder\.layers\.0\.fc1\.weight, which"):
        load_checkpoint(folder)


def test_a_config_with_more_layers_than_the_weights_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "deep")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "encoder_layers": 2}))
    with pytest.raises(CheckpointError, match=r"deep: .* lack model\.encoder\.layers\.1\.\S+ and \d+ more, which"):
        load_checkpoint(folder)


def test_an_output_layer_of_its_own_that_is_not_stored_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "untied")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"lack proj_out\.weight, "):
        load_checkpoint(folder)


def test_another_architecture_raises_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="'bert'"):
        load_checkpoint(tmp_path)


def test_a_name_that_is_no_folder_and_no_hub_id_raises_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match="no such folder, and not a valid Hub id"):
        load_checkpoint("no/such/folder")
