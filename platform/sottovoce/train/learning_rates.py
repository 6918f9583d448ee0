"""Say when a learning rate is far from what is known to work for the model's size and the method."""

import math
from dataclasses import dataclass

import numpy as np

from sottovoce.train.settings import TrainingConfig


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
    if known.lowest <= config.highest_rate <= known.highest:
        return ()
    is_high = config.highest_rate > known.highest
    consequence = "the model may forget what it knew, or diverge" if is_high else "the run may hardly learn"
    return (
        f"learning_rate {config.highest_rate:g} is far {'above' if is_high else 'below'} what is known to work for "
        f"method {config.method} on a model of {num_weights / 1e6:.3g} million weights: about {known.known:.3g}, at "
        f"least {known.lowest:.3g} and at most {known.highest:.3g} ({known.source}); {consequence}",
    )
