"""Adapters that peft alone made: each is merged into what it computed in stock Whisper, or refused by name."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from narrow_whisper import narrow_config, narrow_generation
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration, WhisperTokenizerFast

from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import shares_base
from sottovoce.model.checkpoint import (
    Checkpoint,
    find_adapted,
    load_adapted,
    load_checkpoint,
    save_checkpoint,
)
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.shared_base import SharedBase

INPUTS = torch.tensor([[50_258, 50_259, 11, 300]])
SHARED = {
    "dora, ranks of their own": {
        "target_modules": ["q_proj", "fc1"],
        "use_dora": True,
        "rank_pattern": {"fc1": 3},
        "alpha_pattern": {"fc1": 9},
    },
    "rank-stabilized, token rows": {
        "target_modules": "all-linear",
        "task_type": "SEQ_2_SEQ_LM",
        "use_rslora": True,
        "trainable_token_indices": [11, 300],
    },
}
UNTIED = {
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "both": {"target_modules": ["embed_tokens", "proj_out"]},
    "whole both": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "proj_out"]},
    "unlike rows": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [11], "proj_out": [5]}},
}
OWN_BASE = {
    "biases, norms, principal components": {
        "target_modules": ["q_proj", "fc1"],
        "bias": "all",
        "modules_to_save": ["layer_norm"],
        "init_lora_weights": "pissa",
    },
    "whole, tied": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}


@pytest.fixture(scope="module")
def base(micro_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper of width 64, 2+2 layers and a context of 2 s, which stock Whisper reads as well."""
    folder = tmp_path_factory.mktemp("others") / "base"
    tokenizer = WhisperTokenizerFast.from_pretrained(micro_assets, local_files_only=True)
    config = narrow_config(
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        max_source_positions=100,
        init_std=0.1,
        audio_context_s=[2.0, 2.0],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TrimmedWhisper(config)
    model.generation_config = narrow_generation(tokenizer)
    save_checkpoint(Checkpoint(model=model.eval(), tokenizer=tokenizer, source="base"), folder)
    return folder


@pytest.fixture(scope="module")
def base_logits(base: Path) -> torch.Tensor:
    return logits(load_checkpoint(base).model)


def logits(model: torch.nn.Module) -> torch.Tensor:
    features = torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = model(input_features=features, decoder_input_ids=INPUTS).logits
    return found


def train_elsewhere(base: Path, folder: Path, *, num_added: int = 0, **settings: object) -> torch.Tensor:
    """Save an adapter with weights that matter, by peft alone; return what its model computes."""
    stock = WhisperForConditionalGeneration.from_pretrained(base)
    if num_added:
        stock.resize_token_embeddings(stock.config.vocab_size + num_added, mean_resizing=False)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's advice to those who train
        torch.manual_seed(1)
        model = get_peft_model(stock, LoraConfig(**({"r": 2, "lora_alpha": 4, "init_lora_weights": False} | settings)))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.requires_grad and ("lora_" not in name or "init_lora_weights" in settings):
                    weight += 0.05 * torch.randn_like(weight)
        model.eval().save_pretrained(folder)
    return logits(model.get_base_model())


@pytest.mark.parametrize("settings", [pytest.param(one, id=name) for name, one in (SHARED | UNTIED | OWN_BASE).items()])
def test_a_merged_adapter_computes_what_it_did_in_stock_whisper(base, base_logits, tmp_path, settings) -> None:
    expected = train_elsewhere(base, tmp_path / "adapter", **settings)
    merged = load_checkpoint(tmp_path / "adapter")
    assert (expected - base_logits).abs().max() > 0.01, "an adapter that changes nothing proves nothing"
    torch.testing.assert_close(logits(merged.model), expected, rtol=1e-4, atol=1e-4)
    is_tied = merged.model.proj_out.weight is merged.model.model.decoder.embed_tokens.weight
    assert is_tied is merged.model.config.tie_word_embeddings is (settings not in UNTIED.values())
    assert shares_base(tmp_path / "adapter") is (settings in SHARED.values())


def test_an_untied_model_is_saved_so_that_other_programs_load_it(base, tmp_path) -> None:
    expected = train_elsewhere(base, tmp_path / "adapter", target_modules=["q_proj", "proj_out"], use_dora=True)
    merged = load_checkpoint(tmp_path / "adapter")
    save_checkpoint(merged, tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False
    for again in (
        merged.model,
        WhisperForConditionalGeneration.from_pretrained(tmp_path / "merged"),
        load_checkpoint(tmp_path / "merged").model,
    ):
        torch.testing.assert_close(logits(again), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_with_tokens_of_its_own_brings_their_rows_and_its_tokenizer(base, tmp_path) -> None:
    tokenizer = WhisperTokenizerFast.from_pretrained(base, local_files_only=True, from_slow=False)
    assert tokenizer.add_tokens(["Zystoskopie", "śródpiersie"]) == 2
    expected = train_elsewhere(base, tmp_path / "adapter", num_added=2, target_modules=["q_proj"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    merged = load_checkpoint(tmp_path / "adapter")
    assert merged.tokenizer.convert_tokens_to_ids("śródpiersie") == 51_866
    assert merged.model.config.vocab_size == 51_867
    torch.testing.assert_close(logits(merged.model), expected, rtol=1e-4, atol=1e-4)


def test_saved_embeddings_stay_with_an_adapter_that_is_trained_on(base, tmp_path) -> None:
    train_elsewhere(base, tmp_path / "adapter", **UNTIED["both"])
    loaded = load_adapted(tmp_path / "adapter")
    save_checkpoint(loaded, tmp_path / "again")
    names = [
        load_file(folder / "adapter_model.safetensors").keys() for folder in (tmp_path / "adapter", tmp_path / "again")
    ]
    assert names[0] == names[1]
    assert any("embed_tokens.base_layer.weight" in name for name in names[0])


def test_an_adapter_that_changes_what_others_share_is_not_added_to_a_shared_base(base, base_logits, tmp_path) -> None:
    train_elsewhere(base, tmp_path / "adapter", target_modules=["q_proj"], bias="lora_only")
    shared = SharedBase(base)
    with pytest.raises(CheckpointError, match=r"adapter: its adapter changes more .*: merge it first, with python -m"):
        shared.add(find_adapted(tmp_path / "adapter"))
    assert torch.equal(logits(shared.checkpoint.model), base_logits)


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "adapter"
    train_elsewhere(base, folder, target_modules=["q_proj"])
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"peft_type": "LOHA"}, r"peft_type is 'LOHA', not 'LORA'; merge it with peft's merge_and_unload, and use"),
        ({"peft_type": "P_TUNING"}, r"peft_type is 'P_TUNING', not 'LORA'; train a LoRA adapter"),
        (
            {"auto_mapping": {"base_model_class": "LlamaForCausalLM"}},
            "was trained in a LlamaForCausalLM, not in a WhisperForConditionalGeneration; use one of Whisper",
        ),
        ({"auto_mapping": None, "target_modules": ["gate_proj"]}, r"cannot be added to \S+base: Target modules .*gate"),
        ({"auto_mapping": None, "target_modules": ["fc1"]}, r"do not belong together: \S+q_proj\S+ and \d+ more"),
    ],
)
def test_an_adapter_of_another_method_or_model_is_refused_by_name(plain, tmp_path, change, sentence) -> None:
    folder = shutil.copytree(plain, tmp_path / "adapter")
    values = json.loads((folder / "adapter_config.json").read_text()) | change
    (folder / "adapter_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"adapter: .*{sentence}") as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
        PromptTuningConfig(num_virtual_tokens=2, num_layers=2, token_dim=64, num_attention_heads=2),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_files_of_other_methods_are_refused_with_the_remedy(tmp_path, config) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"peft_type is '{config.peft_type.value}', not 'LORA'; (merge|train)"):
        load_checkpoint(tmp_path)


def test_an_adapter_for_another_width_is_refused_with_both_shapes(plain, tiny_checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be added to \S+tiny: \S+ is \(2, 64\), and must be \(2, 32\) "):
        load_checkpoint(plain, base=tiny_checkpoint)


def test_an_adapter_of_a_base_that_is_not_whisper_is_refused(plain, tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"its base \S+ cannot be used: .*model_type is 'llama', not 'whisper'"):
        load_checkpoint(plain, base=tmp_path)


def test_a_pickle_is_never_read(plain, tmp_path) -> None:
    shutil.copy(plain / "adapter_config.json", tmp_path)
    torch.save(load_file(plain / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is a pickle, .* save it as safetensors"):
        load_checkpoint(tmp_path)
