"""Load and save Whisper checkpoints: a folder of Hugging Face files, or a Hub id; a whole model, or an adapter."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperTokenizerFast

from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import (
    Adapter,
    AdapterBase,
    LoraSettings,
    add_adapter,
    is_adapter,
    read_adapter_base,
    restore_adapter,
)
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.frozen_base import four_bit_config
from sottovoce.model.generation import load_generation_config, misplaced_settings
from sottovoce.model.labels import ENGLISH, is_english_only
from sottovoce.model.source import read_config, read_weight_shapes, resolve_folder
from sottovoce.model.tokenizer import TOKENIZER_FILE

_SHAPE_KEYS = (
    "d_model",
    "vocab_size",
    "num_mel_bins",
    "max_source_positions",
    "max_target_positions",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
)


_EMBEDDING, _OUTPUT = "model.decoder.embed_tokens.weight", "proj_out.weight"
_NO_TIMESTAMPS = "<|notimestamps|>"


@dataclass(frozen=True)
class Checkpoint:
    """A Whisper model with everything needed to train, export or serve it."""

    model: TrimmedWhisper
    tokenizer: WhisperTokenizerFast
    source: str
    """The folder or Hub id it was loaded from."""
    adapter: Adapter | None = None
    """The model's adapter, if it has one that is not merged."""

    @property
    def context(self) -> AudioContext:
        """The audio contexts the weights were trained on."""
        return self.model.audio_context

    @property
    def num_mel_bins(self) -> int:
        """80, or 128 for large-v3."""
        return int(self.model.config.num_mel_bins)

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the generation config lists; English alone for an English-only model."""
        if is_english_only(self.tokenizer):
            return (ENGLISH,)
        generation: Any = self.model.generation_config  # transformers sets Whisper's own fields at run time
        return tuple(token.strip("<|>") for token in generation.lang_to_id)


def load_checkpoint(source: str | Path, *, base: str | Path | None = None) -> Checkpoint:
    """Load a checkpoint in float32, from a folder or the Hub; an adapter is merged into its base.

    Only safetensors weights are read, and keys of config.json that can run code are dropped.

    Args:
        source: a folder, a Hub id, or micro.
        base: folder or Hub id of an adapter's base, if not the one in the adapter's files.

    Raises:
        CheckpointError: no such folder or Hub id, a missing or damaged file, or weights that do not fit the config; for
            an adapter, also a base that is missing, of another shape, or not the one it was trained on.
    """
    folder = resolve_folder(source)
    if is_adapter(folder):
        return merge_adapter(load_adapted(source, base=base))
    config, tokenizer = read_model_config(folder), load_tokenizer(folder, source)
    model = _load_model(folder, source, config=config, configs=folder, tokenizer=tokenizer)
    return Checkpoint(model=model, tokenizer=tokenizer, source=str(source))


def load_adapted(
    source: str | Path, *, base: str | Path | None = None, four_bit: torch.dtype | None = None
) -> Checkpoint:
    """Load an adapter and its base without merging them, so that training can continue.

    Args:
        source: folder or Hub id of the adapter.
        base: folder or Hub id of its base, if not the one in the adapter's files.
        four_bit: see ``adapt_base``.

    Raises:
        CheckpointError: see ``load_checkpoint``.
    """
    adapted = find_adapted(source, base=base)
    config, tokenizer = read_model_config(adapted.configs), load_tokenizer(adapted.tokenizer, source)
    try:
        model = _load_model(
            adapted.base_folder,
            adapted.base.name,
            config=config,
            configs=adapted.configs,
            tokenizer=tokenizer,
            four_bit=four_bit,
        )
    except CheckpointError as error:
        raise _base_error(source, adapted.base, error) from error
    adapter = restore_adapter(model, adapted.folder, base=adapted.base)
    return Checkpoint(model=model, tokenizer=tokenizer, source=str(source), adapter=adapter)


@dataclass(frozen=True)
class Adapted:
    """The folders of an adapter and its base."""

    folder: Path
    configs: Path
    """Folder of the configs: the adapter's, or the base's for adapters that others trained."""
    tokenizer: Path
    """Folder of the tokenizer, also one of the two."""
    base: AdapterBase
    base_folder: Path


def find_adapted(source: str | Path, *, base: str | Path | None = None) -> Adapted:
    """Find an adapter and its base, and check that they belong together; load nothing.

    Args:
        source: folder or Hub id of the adapter.
        base: folder or Hub id of its base, if not the one in the adapter's files.

    Raises:
        CheckpointError: see ``load_checkpoint``.
    """
    folder = resolve_folder(source)
    stated = read_adapter_base(folder, base=None if base is None else str(base))
    try:
        base_folder = resolve_folder(stated.name, revision=stated.revision)
        _refuse_adapter(base_folder)
        stated.check(base_folder)
        own = folder if (folder / "config.json").is_file() else base_folder
        _check_shape(read_model_config(own), read_model_config(base_folder), base_folder)
    except CheckpointError as error:
        raise _base_error(source, stated, error) from error
    tokenizer = folder if (folder / TOKENIZER_FILE).is_file() else own
    return Adapted(folder=folder, configs=own, tokenizer=tokenizer, base=stated, base_folder=base_folder)


def adapt_base(
    source: str | Path,
    settings: LoraSettings,
    *,
    token_ids: Callable[[WhisperTokenizerFast], Iterable[int]],
    seed: int,
    four_bit: torch.dtype | None = None,
) -> Checkpoint:
    """Load a base model and add an untrained adapter to it.

    Args:
        source: folder or Hub id of the base, or micro.
        settings: of the adapter.
        token_ids: see ``add_adapter``.
        seed: of the adapter's initial weights.
        four_bit: hold the base's matrices in 4 bits on the CUDA device and compute in this type; None keeps them in
            float32.

    Raises:
        CheckpointError: no such base, or one that is itself an adapter.
    """
    folder = resolve_folder(source)
    _refuse_adapter(folder)
    config, tokenizer = read_model_config(folder), load_tokenizer(folder, source)
    model = _load_model(folder, source, config=config, configs=folder, tokenizer=tokenizer, four_bit=four_bit)
    base = AdapterBase.describe(str(source), folder)
    adapter = add_adapter(model, settings, base=base, token_ids=token_ids(tokenizer), seed=seed)
    return Checkpoint(model=model, tokenizer=tokenizer, source=str(source), adapter=adapter)


def merge_adapter(checkpoint: Checkpoint) -> Checkpoint:
    """Merge a checkpoint's adapter into its model, whose weights change in place.

    Raises:
        CheckpointError: the adapter makes weights NaN or infinite.
    """
    assert checkpoint.adapter is not None, "only an adapter can be merged"
    try:
        model = checkpoint.adapter.merge()
    except ValueError as error:
        raise CheckpointError(checkpoint.source, f"its adapter is broken: {error}") from error
    model.requires_grad_(True)
    return replace(checkpoint, model=model, adapter=None)


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write every Hugging Face file of a checkpoint: weights, configs, tokenizer, feature extractor.

    For a model with an adapter, only the adapter's weights are written, as peft's files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = checkpoint.model
    if checkpoint.adapter is None:
        model.save_pretrained(folder, safe_serialization=True)
    else:
        checkpoint.adapter.save(folder)
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=checkpoint.num_mel_bins).save_pretrained(folder)


def read_model_config(folder: Path) -> WhisperConfig:
    """Read config.json without the keys that can run code, and without generation settings.

    Raises:
        CheckpointError: see ``read_config``.
    """
    config: WhisperConfig = WhisperConfig.from_dict(read_config(folder))
    for name in misplaced_settings(config):
        setattr(config, name, None)
    return config


def load_tokenizer(folder: Path, source: str | Path) -> WhisperTokenizerFast:
    """Load a checkpoint's tokenizer; errors name ``source``.

    Raises:
        CheckpointError: its files are missing or damaged, or not Whisper's.
    """
    try:
        tokenizer: WhisperTokenizerFast = WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises no narrower one for a damaged file
        raise CheckpointError(source, f"its tokenizer cannot be read: {_one_line(error)}") from error
    if tokenizer.convert_tokens_to_ids(_NO_TIMESTAMPS) == tokenizer.unk_token_id:
        raise CheckpointError(source, f"its tokenizer has no {_NO_TIMESTAMPS}, so it is not Whisper's")
    return tokenizer


def _load_model(
    folder: Path,
    source: str | Path,
    *,
    config: WhisperConfig,
    configs: Path,
    tokenizer: WhisperTokenizerFast,
    four_bit: torch.dtype | None = None,
) -> TrimmedWhisper:
    """Load the weights of a folder with the configs of the same or another folder."""
    _check_weights(read_weight_shapes(folder), config, source)
    generation_config = load_generation_config(configs, tokenizer, source=source)
    placed: dict[str, Any] = {}
    if four_bit is not None:
        placed = {"quantization_config": four_bit_config(four_bit), "device_map": {"": torch.cuda.current_device()}}
    try:
        model: TrimmedWhisper = TrimmedWhisper.from_pretrained(
            folder,
            config=config,
            generation_config=generation_config,  # otherwise it reads the file itself
            use_safetensors=True,
            dtype=torch.float32,
            local_files_only=True,
            **placed,
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(source, _one_line(error)) from error
    model.generation_config = generation_config
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _check_weights(stored: Mapping[str, tuple[int, ...]], config: WhisperConfig, source: str | Path) -> None:
    """Refuse weights that are missing or of another shape. transformers would initialize the missing ones at random.

    Raises:
        CheckpointError: names the first of them.
    """
    with torch.device("meta"):
        required = {name: tuple(weight.shape) for name, weight in TrimmedWhisper(config).state_dict().items()}
    if config.tie_word_embeddings:
        del required[_OUTPUT]
    if not any(name.startswith("model.") for name in stored):  # a WhisperModel, which has no output layer
        stored = {name if name == _OUTPUT else f"model.{name}": shape for name, shape in stored.items()}
    missing = sorted(required.keys() - stored.keys())
    if missing == [_EMBEDDING] and _OUTPUT in stored:
        reason = f"its weight files hold {_OUTPUT} in the place of {_EMBEDDING}; save it with transformers' own tools"
        raise CheckpointError(source, reason)
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise CheckpointError(source, f"its weight files lack {missing[0]}{more}, which config.json requires")
    if getattr(config, "quantization_config", None) is not None:  # stored packed
        return
    for name, shape in required.items():
        if stored[name] != shape:
            reason = f"{name} is {stored[name]} in its weight files, and {shape} by config.json: one is another model's"
            raise CheckpointError(source, reason)


def _refuse_adapter(folder: Path) -> None:
    if is_adapter(folder):
        raise CheckpointError(folder, "it is itself an adapter; merge it first: python -m jobs.merge_adapter")


def _base_error(source: str | Path, base: AdapterBase, error: CheckpointError) -> CheckpointError:
    reason = (
        f"it is an adapter, and its base {base.name} cannot be used: {error}. Give another folder or Hub id as base"
    )
    return CheckpointError(source, reason)


def _check_shape(adapted: WhisperConfig, base: WhisperConfig, folder: Path) -> None:
    """Check that the base has the shape of the model the adapter was trained in."""
    for key in _SHAPE_KEYS:
        expected, found = getattr(adapted, key), getattr(base, key)
        if expected != found:
            raise CheckpointError(
                folder, f"its shape is not that of the adapter's base: {key} is {found}, not {expected}"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
