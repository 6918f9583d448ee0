"""What each method needs, and how much of a model it trains: decided in the driver, before anything starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from transformers import WhisperTokenizerFast

from sottovoce.errors import CheckpointError, FourBitUnavailableError
from sottovoce.model.adapter import AdapterBase, add_adapter, is_adapter
from sottovoce.model.checkpoint import read_model_config, resolve_folder
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.frozen_base import find_what_four_bit_lacks
from sottovoce.model.labels import used_token_ids
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.objective import prepare_whisper


@dataclass(frozen=True)
class KnownRate:
    """A learning rate that was used with success."""

    name: str
    """Of the model."""
    num_weights: int
    rate: float
    source: str


_PUBLISHED = "vasistalodagala/whisper-finetune: the rate of pre-training over 40"
_KNOWN_RATES = (  # full fine-tuning, by size; weights as transformers counts them
    KnownRate("micro", 12_863_424, 6.3e-4, "our own recipes for the embedded model, 5e-4 to 8e-4"),
    KnownRate("tiny", 37_760_640, 3.75e-5, _PUBLISHED),
    KnownRate("base", 72_593_920, 2.5e-5, _PUBLISHED),
    KnownRate("small", 241_734_912, 1.25e-5, _PUBLISHED),
    KnownRate("medium", 763_857_920, 6.25e-6, _PUBLISHED),
    KnownRate("large-v2", 1_543_304_960, 5e-6, _PUBLISHED),  # large-v3 too; the first large 4.375e-6
)
_ADAPTER_RATE = KnownRate("any", 0, 1e-3, "the default of shuaijiang/Whisper-Finetune for LoRA")
_ADAPTER_METHODS = ("lora", "qlora")

# Guesses on which side an error costs more: with ten times too little a run learns slowly, with five times too much it
# can lose what the model knew (1e-4 on whisper-small is eight times the table's rate).
_LOWEST, _HIGHEST = 1 / 10, 5.0


@dataclass(frozen=True)
class RateRange:
    """Learning rates that are not far from a known one."""

    lowest: float
    highest: float
    known: float
    source: str


def known_range(num_weights: int, method: str) -> RateRange:
    """Give the range of learning rates for a model.

    Between two sizes of the table the rate is that on a straight line of both logarithms; beyond its ends that of the
    nearest.

    Args:
        num_weights: of the whole model, trained or not.
        method: an adapter's rate does not depend on the size; all others change the model's own weights.
    """
    rate, source = _ADAPTER_RATE.rate, _ADAPTER_RATE.source
    if method not in _ADAPTER_METHODS:
        sizes, rates = zip(*((math.log(one.num_weights), math.log(one.rate)) for one in _KNOWN_RATES), strict=True)
        rate = math.exp(np.interp(math.log(num_weights), sizes, rates))
        source = min(_KNOWN_RATES, key=lambda one: abs(math.log(one.num_weights / num_weights))).source
    return RateRange(lowest=rate * _LOWEST, highest=rate * _HIGHEST, known=rate, source=source)


def settle_rate(config: TrainingConfig, num_weights: int) -> TrainingConfig:
    """Put in the learning rate known to work for a base model of so many weights, where none is given."""
    if config.learning_rate is not None:
        return config
    return config.model_copy(update={"learning_rate": round_rate(known_range(num_weights, config.method).known)})


def round_rate(rate: float) -> float:
    """Round a rate to as many digits as a person would write."""
    return float(f"{rate:.3g}")


def find_rate_warnings(config: TrainingConfig, num_weights: int) -> tuple[str, ...]:
    """Compare a run's learning rate with what is known.

    Args:
        config: has a rate, and names the method.
        num_weights: of the base model.

    Returns:
        One sentence where the rate is far outside, none otherwise.
    """
    known = known_range(num_weights, config.method)
    if known.lowest <= config.peak_lr <= known.highest:
        return ()
    is_high = config.peak_lr > known.highest
    consequence = "the model may forget what it knew, or diverge" if is_high else "the run may hardly learn"
    return (
        f"learning_rate {config.peak_lr:g} is far {'above' if is_high else 'below'} what is known to work for "
        f"method {config.method} on a model of {num_weights / 1e6:.3g} million weights: about {known.known:.3g}, at "
        f"least {known.lowest:.3g} and at most {known.highest:.3g} ({known.source}); {consequence}",
    )


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
