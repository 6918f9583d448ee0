"""Load and save Whisper checkpoints: a folder of Hugging Face files, or a Hub id; a whole model, or an adapter."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperTokenizerFast

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
from sottovoce.model.source import read_config, resolve_folder

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
        """ISO 639-1 codes the generation config lists."""
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
    model = _load_model(folder, source, configs=folder)
    return Checkpoint(model=model, tokenizer=load_tokenizer(folder, source), source=str(source))


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
    try:
        model = _load_model(adapted.base_folder, adapted.base.name, configs=adapted.configs, four_bit=four_bit)
    except CheckpointError as error:
        raise _base_error(source, adapted.base, error) from error
    adapter = restore_adapter(model, adapted.folder, base=adapted.base)
    tokenizer = load_tokenizer(adapted.configs, source)
    return Checkpoint(model=model, tokenizer=tokenizer, source=str(source), adapter=adapter)


@dataclass(frozen=True)
class Adapted:
    """The folders of an adapter and its base."""

    folder: Path
    configs: Path
    """Folder of the configs and the tokenizer: the adapter's, or the base's for adapters that others trained."""
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
    return Adapted(folder=folder, configs=own, base=stated, base_folder=base_folder)


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
    tokenizer = load_tokenizer(folder, source)
    model = _load_model(folder, source, configs=folder, four_bit=four_bit)
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
    """Read config.json without the keys that can run code.

    Raises:
        CheckpointError: see ``read_config``.
    """
    return WhisperConfig.from_dict(read_config(folder))


def load_tokenizer(folder: Path, source: str | Path) -> WhisperTokenizerFast:
    """Load a checkpoint's tokenizer; errors name ``source``.

    Raises:
        CheckpointError: its files are missing or damaged.
    """
    try:
        tokenizer: WhisperTokenizerFast = WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:  # TypeError: no vocabulary
        raise CheckpointError(source, f"{error}") from error
    return tokenizer


def _load_model(
    folder: Path, source: str | Path, *, configs: Path, four_bit: torch.dtype | None = None
) -> TrimmedWhisper:
    """Load the weights of a folder with the configs of the same or another folder."""
    config = read_model_config(configs)
    placed: dict[str, Any] = {}
    if four_bit is not None:
        placed = {"quantization_config": four_bit_config(four_bit), "device_map": {"": torch.cuda.current_device()}}
    try:
        found: Any = TrimmedWhisper.from_pretrained(  # a pair, which transformers' types do not declare
            folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            **placed,
        )
        model: TrimmedWhisper = found[0]
        model.generation_config = GenerationConfig.from_pretrained(configs, local_files_only=True)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(source, f"{error}") from error
    _refuse_missing(found[1]["missing_keys"], source)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _refuse_missing(names: Sequence[str], source: str | Path) -> None:
    """Refuse a model whose missing weights transformers initialized at random; tied weights do not count as missing."""
    if names:
        first, *others = sorted(names)
        more = f" and {len(others)} more" if others else ""
        raise CheckpointError(source, f"its weight files lack {first}{more}, which config.json requires")


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
