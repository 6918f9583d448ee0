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


def test_an_output_layer_in_the_place_of_the_embedding_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "swapped")
    weights = load_file(folder / "model.safetensors")
    weights["proj_out.weight"] = weights.pop("model.decoder.embed_tokens.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"swapped: .* hold proj_out\.weight in the place of model\.decoder\.embed"
    ):
        load_checkpoint(folder)
    save_file({"proj_out.weight": weights["proj_out.weight"]}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"swapped: its weight files lack model\.\S+ and \d+ more, which"):
        load_checkpoint(folder)


def test_weights_of_another_model_are_refused_with_both_shapes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "mixed")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "vocab_size": 51_866}))
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is \(51865, 32\) .*, and \(51866, 32\) by config"):
        load_checkpoint(folder)


def test_weights_without_the_output_layers_model_around_them_load(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "bare")
    weights = {name.removeprefix("model."): one for name, one in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_checkpoint(folder).model.model.state_dict()
    assert all(torch.equal(loaded[name], one) for name, one in weights.items())


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ({"weight_map": {"proj_out.weight": "model-1.safetensors"}}, r"it lacks model-1\.safetensors"),
        ({}, r"it lacks a model\.safetensors\.index\.json that can be read"),
        (None, r"it lacks model\.safetensors; pytorch_model\.bin is not read, .* save it as safetensors"),
    ],
)
def test_a_missing_weight_file_is_named(tiny_checkpoint: Path, tmp_path: Path, index: object, sentence: str) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "part", leave_out="model.safetensors")
    if index is None:
        (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    else:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=f"part: {sentence}"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a'])
def test_a_damaged_tokenizer_raises_checkpoint_error(tiny_checkpoint: Path, tmp_path: Path, content: str) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "torn")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="torn: its tokenizer cannot be read: "):
        load_checkpoint(folder)


def test_the_tokenizer_of_another_model_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_checkpoint, tmp_path / "other", leave_out="tokenizer_config.json")
    (folder / "added_tokens.json").unlink()
    vocabulary = {"<|endoftext|>": 0, "a": 1}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": None}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("")
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"other: its tokenizer has no <\|notimestamps\|>, so it is not Whisper's"
    ):
        load_checkpoint(folder)


def test_another_architecture_raises_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="'bert'"):
        load_checkpoint(tmp_path)


def test_a_name_that_is_no_folder_and_no_hub_id_raises_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match="no such folder, and not a valid Hub id"):
        load_checkpoint("no/such/folder")
