"""What each method needs, and how much of a model it trains: decided in the driver, before anything starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from transformers import WhisperTokenizerFast

from sottovoce.errors import CheckpointError, FourBitUnavailableError
from sottovoce.model.adapter import AdapterBase, add_adapter, is_adapter
from sottovoce.model.checkpoint import read_model_config, resolve_folder
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.frozen_base import find_what_four_bit_lacks
from sottovoce.model.labels import used_token_ids
from sottovoce.schema import Utterance
from sottovoce.train.objective import prepare_whisper
from sottovoce.train.settings import TrainingConfig


class ParameterCount(NamedTuple):
    """How many numbers a model consists of."""

    base: int
    """In the base model; tied weights count once."""
    trained: int
    """That training changes, those of an adapter included."""


def check_method(config: TrainingConfig, *, device: Literal["cpu", "cuda"]) -> None:
    """See that a run's method can be carried out.

    Raises:
        FourBitUnavailableError: qlora without a GPU or bitsandbytes.
        CheckpointError: an adapter for a base that is itself an adapter, or no such base.
    """
    if config.method == "qlora":
        missing = find_what_four_bit_lacks(has_gpu=device == "cuda")
        if missing is not None:
            raise FourBitUnavailableError(missing)
    if config.trains_adapter and is_adapter(resolve_folder(config.base)):
        raise CheckpointError(config.base, "it is itself an adapter; merge it first with python -m jobs.merge_adapter")


def count_weights(base: str) -> int:
    """Count a base model's weights by its config alone; tied ones count once.

    Raises:
        CheckpointError: no such model.
    """
    return _count(_without_memory(resolve_folder(base)))


def count_parameters(config: TrainingConfig, utterances: Sequence[Utterance]) -> ParameterCount:
    """Count what a run trains, on a model without memory.

    Args:
        config: of the run.
        utterances: the training split, whose tokens an adapter may train rows of.

    Raises:
        CheckpointError: no such base.
    """
    folder = resolve_folder(config.base)
    whisper = _without_memory(folder)
    base = _count(whisper)
    if config.trains_adapter:
        tokens = _tokens(config, folder, utterances)
        whisper_base = AdapterBase(config.base, revision=None, weights_sha256=None)
        with torch.device("meta"):
            add_adapter(whisper, config.lora, base=whisper_base, token_ids=tokens, seed=config.seed)
    prepare_whisper(whisper, method=config.method, dropout=0.0, gradient_checkpointing=False)
    return ParameterCount(base, sum(weight.numel() for weight in whisper.parameters() if weight.requires_grad))


def _without_memory(folder: Path) -> TrimmedWhisper:
    with torch.device("meta"):
        return TrimmedWhisper(read_model_config(folder))


def _count(whisper: TrimmedWhisper) -> int:
    return sum(weight.numel() for weight in whisper.parameters())


def _tokens(config: TrainingConfig, folder: Path, utterances: Sequence[Utterance]) -> set[int]:
    if not config.lora.token_rows:
        return set()
    return used_token_ids(WhisperTokenizerFast.from_pretrained(folder, local_files_only=True), utterances)
