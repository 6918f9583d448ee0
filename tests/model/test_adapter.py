import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import LoraSettings
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, adapt_base, load_adapted, load_checkpoint, save_checkpoint
from sottovoce.model.context import TrimmedWhisper, set_audio_context

SETTINGS = LoraSettings(rank=2, alpha=4, token_rows=True)
TOKEN_IDS = (11, 50_257, 50_258)
INPUTS = torch.tensor([[50_258, 50_259, 11]])


def adapted(base: Path, settings: LoraSettings = SETTINGS) -> Checkpoint:
    """A base with an adapter that was, so to speak, trained: none of its weights is zero."""
    checkpoint = adapt_base(str(base), settings, token_ids=lambda _tokenizer: TOKEN_IDS, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trained(checkpoint.model):
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    checkpoint.model.eval()
    return checkpoint


def trained(whisper: TrimmedWhisper) -> list[torch.nn.Parameter]:
    return [weight for weight in whisper.parameters() if weight.requires_grad]


def logits(whisper: TrimmedWhisper, *, num_frames: int = 200) -> torch.Tensor:
    features = torch.randn(1, 80, num_frames, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoded = whisper.model.encoder(features).last_hidden_state
        hidden = whisper.model.decoder(input_ids=INPUTS, encoder_hidden_states=encoded).last_hidden_state
        return whisper.proj_out(hidden)


@pytest.fixture(scope="module")
def saved(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved adapter."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    save_checkpoint(adapted(tiny_checkpoint), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return shutil.copytree(saved, tmp_path / "adapter")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask the Hub, not even to be refused."""
    monkeypatch.setattr("socket.getaddrinfo", lambda *_args, **_kwargs: pytest.fail("the network was asked"))


def test_an_untrained_adapter_changes_nothing(tiny_checkpoint: Path) -> None:
    fresh = adapt_base(str(tiny_checkpoint), SETTINGS, token_ids=lambda _tokenizer: TOKEN_IDS, seed=0).model.eval()
    torch.testing.assert_close(logits(fresh), logits(load_checkpoint(tiny_checkpoint).model), rtol=0, atol=1e-5)


def test_only_the_adapter_is_trained_and_its_first_weights_follow_from_the_seed(tiny_checkpoint: Path) -> None:
    torch.manual_seed(5)
    first = adapt_base(str(tiny_checkpoint), SETTINGS, token_ids=lambda _tokenizer: TOKEN_IDS, seed=3)
    torch.manual_seed(6)
    second = adapt_base(str(tiny_checkpoint), SETTINGS, token_ids=lambda _tokenizer: TOKEN_IDS, seed=3)
    names = {name for name, weight in first.model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or "trainable_tokens" in name for name in names)
    for one, other in zip(trained(first.model), trained(second.model), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("part", "absent"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_an_adapter_of_one_part_leaves_the_other_alone(tiny_checkpoint: Path, part: str, absent: str) -> None:
    settings = LoraSettings.model_validate({"rank": 2, "part": part, "targets": ["q_proj", "fc1"]})
    whisper = adapted(tiny_checkpoint, settings).model
    names = [name for name, weight in whisper.named_parameters() if weight.requires_grad]
    assert names
    assert not [name for name in names if name.startswith(f"model.{absent}.")]
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in names} == {"q_proj", "fc1"}


def test_a_saved_adapter_is_small_and_names_its_base(tiny_checkpoint: Path, folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "generation_config.json"} <= names
    assert {"preprocessor_config.json", "tokenizer.json", "vocab.json"} <= names
    assert "model.safetensors" not in names
    size, base_size = (folder / "adapter_model.safetensors").stat().st_size, 51_865 * 32 * 4
    assert size < 0.02 * base_size
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_checkpoint)
    assert config["task_type"] is None


def test_an_adapter_is_loaded_merged_and_as_it_was(tiny_checkpoint: Path, folder: Path) -> None:
    before, merged = adapted(tiny_checkpoint), load_checkpoint(folder)
    base = load_checkpoint(tiny_checkpoint)
    assert merged.adapter is None
    assert {type(one) for one in merged.model.modules()} == {type(one) for one in base.model.modules()}
    assert merged.model.proj_out.weight is merged.model.model.decoder.embed_tokens.weight
    assert (logits(merged.model) - logits(base.model)).abs().max() > 0.1
    torch.testing.assert_close(logits(merged.model), logits(before.model), rtol=1e-4, atol=1e-4)


def test_the_context_of_a_run_is_that_of_its_adapter_not_of_the_base(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = adapted(tiny_checkpoint)
    set_audio_context(checkpoint.model.config, AudioContext(1.0, 6.0))
    checkpoint.model.generation_config.language = "de"
    save_checkpoint(checkpoint, tmp_path / "adapter")
    loaded = load_checkpoint(tmp_path / "adapter")
    assert loaded.context == AudioContext(1.0, 6.0)
    assert loaded.model.generation_config.language == "de"


def test_peft_alone_loads_an_adapter_onto_stock_whisper(tiny_checkpoint: Path, folder: Path) -> None:
    stock = WhisperForConditionalGeneration.from_pretrained(tiny_checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_peft = PeftModel.from_pretrained(stock, str(folder)).eval()
    features = torch.randn(1, 80, 3_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = by_peft(input_features=features, decoder_input_ids=INPUTS).logits
    torch.testing.assert_close(found, logits(load_checkpoint(folder).model, num_frames=3_000), rtol=1e-4, atol=1e-4)


def test_a_run_goes_on_with_the_very_adapter_it_saved(tiny_checkpoint: Path, folder: Path) -> None:
    """Names, order and bits: the optimizer's state belongs to weights by their index."""
    before, after = adapted(tiny_checkpoint), load_adapted(folder)
    assert after.adapter is not None
    pairs = zip(before.model.named_parameters(), after.model.named_parameters(), strict=True)
    for (name, one), (other_name, other) in pairs:
        assert (name, one.requires_grad) == (other_name, other.requires_grad)
        assert torch.equal(one, other)


def test_the_adapter_of_others_comes_without_the_files_of_the_whole_model(folder: Path) -> None:
    merged = logits(load_checkpoint(folder).model)
    for path in folder.iterdir():
        if not path.name.startswith("adapter_"):
            path.unlink()
    torch.testing.assert_close(logits(load_checkpoint(folder).model), merged, rtol=0, atol=0)


def test_a_base_that_is_gone_is_named_and_can_be_named_anew(tiny_checkpoint: Path, folder: Path) -> None:
    state_base(folder, "/nowhere/base")
    with pytest.raises(CheckpointError, match=r"adapter, and its base /nowhere/base cannot be used.*no such folder"):
        load_checkpoint(folder)
    assert load_checkpoint(folder, base=tiny_checkpoint).adapter is None


def test_a_base_of_another_shape_is_refused_by_name(tiny_checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_checkpoint(load_checkpoint(tiny_checkpoint), other)
    values = json.loads((other / "config.json").read_text()) | {"decoder_layers": 3}
    (other / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"base .*other cannot be used.*decoder_layers is 3, not 1"):
        load_checkpoint(folder, base=other)


def test_a_base_whose_weights_changed_is_refused(tiny_checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    other = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        other.model.model.decoder.layer_norm.weight += 1.0
    save_checkpoint(other, tmp_path / "other")
    with pytest.raises(CheckpointError, match="not those the adapter was trained on"):
        load_checkpoint(folder, base=tmp_path / "other")


def test_a_base_that_lacks_a_part_of_its_weights_is_told_which(tmp_path: Path, tiny_checkpoint: Path) -> None:
    base = load_checkpoint(tiny_checkpoint)
    save_checkpoint(base, tmp_path / "parts")
    (tmp_path / "parts" / "model.safetensors").unlink()
    base.model.save_pretrained(tmp_path / "parts", max_shard_size="1MB")
    save_checkpoint(adapted(tmp_path / "parts"), tmp_path / "adapter")
    load_checkpoint(tmp_path / "adapter")
    first, *others = sorted((tmp_path / "parts").glob("model-*.safetensors"))
    assert others
    first.unlink()
    with pytest.raises(CheckpointError, match=rf"parts: it lacks {first.name}\. Give another"):
        load_checkpoint(tmp_path / "adapter")
    (tmp_path / "parts" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"parts: it lacks a model\.safetensors\.index\.json that can be read"):
        load_checkpoint(tmp_path / "adapter")


def test_a_folder_without_weights_is_no_base(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty: it lacks model\.safetensors"):
        load_checkpoint(folder, base=tmp_path / "empty")


def test_an_adapter_is_no_base_for_another(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="itself an adapter; merge it first"):
        adapt_base(str(folder), SETTINGS, token_ids=lambda _tokenizer: (), seed=0)


@pytest.mark.parametrize("missing", ["adapter_model.safetensors", "half"])
def test_weights_that_are_missing_or_cut_short_are_a_checkpoint_error(folder: Path, missing: str) -> None:
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if missing == "half":
        weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="its adapter cannot be read"):
        load_checkpoint(folder)


def test_weights_of_another_adapter_are_a_checkpoint_error(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(next(name for name in weights if "fc1" in name))
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"do not belong together: .*fc1"):
        load_checkpoint(folder)


def test_weights_of_another_rank_are_a_checkpoint_error(folder: Path) -> None:
    change_config(folder, r=3)
    with pytest.raises(CheckpointError, match="cannot be added to"):
        load_checkpoint(folder)


def test_an_adapter_that_is_not_finite_is_not_merged(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = adapted(tiny_checkpoint)
    with torch.no_grad():
        trained(checkpoint.model)[0].fill_(float("nan"))
    save_checkpoint(checkpoint, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="its adapter is broken"):
        load_checkpoint(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "peft_type is 'PREFIX_TUNING', not 'LORA'"),
        ({"base_model_name_or_path": None}, "names no base model"),
    ],
)
def test_an_adapter_of_another_kind_or_of_nothing_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    change_config(folder, **change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_the_hubs_commit_is_recorded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--whisper" / "snapshots" / "0123abcd"
    save_checkpoint(load_checkpoint(tiny_checkpoint), snapshot)
    save_checkpoint(adapted(snapshot), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["revision"] == "0123abcd"


def change_config(folder: Path, **values: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def state_base(folder: Path, name: str) -> None:
    change_config(folder, base_model_name_or_path=name)
