"""Random Whispers as narrow as they can be, with the inputs and outputs of a published one: all that a recipe meets."""

import json
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperTokenizerFast

from sottovoce.model.checkpoint import Checkpoint, save_checkpoint
from sottovoce.model.context import TrimmedWhisper

_FIRST_AFTER_LANGUAGES = 50_358  # <|translate|>; from large-v3 on <|yue|> stands here, and all after it one further
_SHAPES = {
    "base": (80, 51_865),
    "small": (80, 51_865),
    "large-v2": (80, 51_865),
    "large-v3": (128, 51_866),
}  # mel bins, tokens


def save_narrow(base: str, micro_assets: Path, folder: Path) -> Path:
    """Write a model of width 32, 1+1 layers and contexts of 30 s, for a base such as ``openai/whisper-small``."""
    num_mel_bins, num_tokens = _SHAPES[base.removeprefix("openai/whisper-")]
    tokenizer = _load_tokenizer(micro_assets, folder / "tokenizer", num_tokens=num_tokens)
    assert len(tokenizer) == num_tokens
    config = narrow_config(num_mel_bins=num_mel_bins, vocab_size=num_tokens)
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
    """Load Whisper's multilingual tokenizer; the larger one has Cantonese after the other languages."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "normalizer.json"):
        shutil.copy(micro_assets / name, folder)
    if num_tokens == 51_866:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        (folder / "tokenizer.json").write_text(json.dumps(_with_cantonese(json.loads(text))), encoding="utf-8")
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        del settings["added_tokens_decoder"]
        settings["additional_special_tokens"].append("<|yue|>")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)


def _with_cantonese(tokenizer: dict[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
    added = tokenizer["added_tokens"]
    before = [token for token in added if token["id"] < _FIRST_AFTER_LANGUAGES]
    after = [{**token, "id": token["id"] + 1} for token in added if token["id"] >= _FIRST_AFTER_LANGUAGES]
    cantonese = {**before[-1], "id": _FIRST_AFTER_LANGUAGES, "content": "<|yue|>"}
    return {**tokenizer, "added_tokens": [*before, cantonese, *after], "post_processor": None}


def narrow_generation(tokenizer: WhisperTokenizerFast, **changes: object) -> GenerationConfig:
    """Return the generation config of a multilingual Whisper with this tokenizer."""
    first, after = (tokenizer.convert_tokens_to_ids(name) for name in ("<|en|>", "<|translate|>"))
    return GenerationConfig(
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        is_multilingual=True,
        lang_to_id={tokenizer.convert_ids_to_tokens(token): token for token in range(first, after)},
        task_to_id={task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in ("translate", "transcribe")},
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"),
        begin_suppress_tokens=[220, tokenizer.eos_token_id],
        suppress_tokens=[],
        max_initial_timestamp_index=50,
        max_length=448,
        return_timestamps=False,
        **changes,
    )
