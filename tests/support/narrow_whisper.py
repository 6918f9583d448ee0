"""Random Whispers as narrow as they can be, with the inputs and outputs of a published one: all that a recipe meets."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperTokenizerFast

from sottovoce.model.checkpoint import Checkpoint, save_checkpoint
from sottovoce.model.context import TrimmedWhisper

_FIRST_AFTER_LANGUAGES = 50_358  # <|translate|>; from large-v3 on <|yue|> stands here, and all after it one further
_FIRST_AFTER_TEXT = 50_256  # an entry of the multilingual vocabulary that GPT-2's, of English-only models, has not
_SHAPES = {
    "base.en": (80, 51_864),
    "base": (80, 51_865),
    "small": (80, 51_865),
    "large-v2": (80, 51_865),
    "large-v3": (128, 51_866),
}  # mel bins, tokens


def save_narrow(base: str, micro_assets: Path, folder: Path, **changes: object) -> Path:
    """Write a model of width 32, 1+1 layers and contexts of 30 s, for a base such as ``openai/whisper-small``."""
    num_mel_bins, num_tokens = _SHAPES[base.removeprefix("openai/whisper-")]
    tokenizer = _load_tokenizer(micro_assets, folder / "tokenizer", num_tokens=num_tokens)
    assert len(tokenizer) == num_tokens
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    ids["decoder_start_token_id"] = tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    config = narrow_config(num_mel_bins=num_mel_bins, vocab_size=num_tokens, **ids | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TrimmedWhisper(config)
    model.generation_config = narrow_generation(tokenizer)
    save_checkpoint(Checkpoint(model=model.eval(), tokenizer=tokenizer, source=base), folder / "model")
    return folder / "model"


def narrow_config(**changes: object) -> WhisperConfig:
    """Return the config of a Whisper of width 32 with one layer on either side."""
    narrow: dict[str, object] = {
        "vocab_size": 51_865,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        "bos_token_id": 50_257,
        "eos_token_id": 50_257,
        "pad_token_id": 50_257,
        "decoder_start_token_id": 50_258,
    }
    return WhisperConfig(**(narrow | changes))


def _load_tokenizer(micro_assets: Path, folder: Path, *, num_tokens: int) -> WhisperTokenizerFast:
    """Load a tokenizer of Whisper's: multilingual, with Cantonese after the other languages, or English-only."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "normalizer.json"):
        shutil.copy(micro_assets / name, folder)
    change = {51_864: _english_only, 51_866: _with_cantonese}.get(num_tokens)
    if change is not None:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        (folder / "tokenizer.json").write_text(json.dumps(change(json.loads(text))), encoding="utf-8")
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        del settings["added_tokens_decoder"]
        settings["additional_special_tokens"] += ["<|yue|>"] if num_tokens == 51_866 else []
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)


def _english_only(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return it in the layout of English-only models: special tokens and times one id lower, from 50 256 on."""
    vocabulary = {name: token for name, token in tokenizer["model"]["vocab"].items() if token < _FIRST_AFTER_TEXT}
    vocabulary["<|endoftext|>"] = _FIRST_AFTER_TEXT
    added = [{**token, "id": token["id"] - 1} for token in tokenizer["added_tokens"]]
    model = {**tokenizer["model"], "vocab": vocabulary}
    return {**tokenizer, "model": model, "added_tokens": added, "post_processor": None}


def _with_cantonese(tokenizer: dict[str, Any]) -> dict[str, Any]:
    added = tokenizer["added_tokens"]
    before = [token for token in added if token["id"] < _FIRST_AFTER_LANGUAGES]
    after = [{**token, "id": token["id"] + 1} for token in added if token["id"] >= _FIRST_AFTER_LANGUAGES]
    cantonese = {**before[-1], "id": _FIRST_AFTER_LANGUAGES, "content": "<|yue|>"}
    return {**tokenizer, "added_tokens": [*before, cantonese, *after], "post_processor": None}


def narrow_generation(tokenizer: WhisperTokenizerFast, **changes: object) -> GenerationConfig:
    """Return the generation config of a published Whisper with this tokenizer."""
    first, after = (tokenizer.convert_tokens_to_ids(name) for name in ("<|en|>", "<|translate|>"))
    languages = {
        "lang_to_id": {tokenizer.convert_ids_to_tokens(token): token for token in range(first, after)},
        "task_to_id": {task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in ("translate", "transcribe")},
    }
    is_multilingual = tokenizer.eos_token_id != _FIRST_AFTER_TEXT
    return GenerationConfig(
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        is_multilingual=is_multilingual,
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"),
        begin_suppress_tokens=[220, tokenizer.eos_token_id],
        suppress_tokens=[],
        max_initial_timestamp_index=50,
        max_length=448,
        return_timestamps=False,
        **(languages if is_multilingual else {}),
        **changes,
    )
