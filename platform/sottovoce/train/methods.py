"""The training methods, in one table: what each needs, what it trains, how it holds the base, and which rates work.

Everything else reads ``METHODS``: the setting ``training.method`` accepts its names, the driver checks what a method
needs, workers load and freeze a model as it says, and model card and diagnosis take their words from it. To add a
method, add an entry here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from sottovoce.errors import CheckpointError, FourBitUnavailableError
from sottovoce.model.adapter import is_adapter
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.frozen_base import find_what_four_bit_lacks
from sottovoce.model.source import resolve_folder

HeldIn: TypeAlias = Literal["fp32", "compute", "nf4"]
"""How the weights of the base are held in memory: in fp32; its frozen matrices in the type that mixed precision
computes with; or its frozen matrices in 4 bits (NF4)."""


@dataclass(frozen=True)
class KnownRate:
    """A peak learning rate that worked for a model of a known size."""

    model: str
    num_weights: int
    """Of the whole model; tied weights count once."""
    rate: float
    source: str


_PUBLISHED = "vasistalodagala/whisper-finetune: the rate of pre-training over 40"
_RATES_BY_SIZE = (  # in the order of size; weights as transformers counts them
    KnownRate("micro", 12_863_424, 6.3e-4, "our own recipes for the embedded model, 5e-4 to 8e-4"),
    KnownRate("tiny", 37_760_640, 3.75e-5, _PUBLISHED),
    KnownRate("base", 72_593_920, 2.5e-5, _PUBLISHED),
    KnownRate("small", 241_734_912, 1.25e-5, _PUBLISHED),
    KnownRate("medium", 763_857_920, 6.25e-6, _PUBLISHED),
    KnownRate("large-v2", 1_543_304_960, 5e-6, _PUBLISHED),  # large-v3 too; the first large 4.375e-6
)
# as for fine-tuning: futo-org/whisper-acft trains tiny to small at 1e-6 to 1e-5, and 1e-5 worked for base in a trial
_DISTILLED_RATES = (KnownRate("any", 0, 1e-5, "our own runs on whisper-base; futo-org/whisper-acft"),)
_ADAPTER_RATES = (KnownRate("any", 0, 1e-3, "the default of shuaijiang/Whisper-Finetune for LoRA"),)

# Guesses on which side an error costs more: with ten times too little a run learns slowly, with five times too much it
# can lose what the model knew (1e-4 on whisper-small is eight times the table's rate).
_LOWEST, _HIGHEST = 1 / 10, 5.0


def _need_nothing(*, has_gpu: bool) -> None:
    """Accept any machine."""


def _need_four_bit(*, has_gpu: bool) -> None:
    """Raise FourBitUnavailableError on a machine that cannot hold a model in 4 bits."""
    missing = find_what_four_bit_lacks(has_gpu=has_gpu)
    if missing is not None:
        raise FourBitUnavailableError(missing)


def _train_all(whisper: TrimmedWhisper) -> None:
    whisper.requires_grad_(True)
    whisper.model.encoder.embed_positions.requires_grad_(False)  # fixed sinusoids


def _train_decoder(whisper: TrimmedWhisper) -> None:
    _train_all(whisper)
    whisper.model.encoder.requires_grad_(False)


def _train_encoder(whisper: TrimmedWhisper) -> None:
    _train_all(whisper)
    whisper.model.decoder.requires_grad_(False)  # and with it proj_out, whose weight is the decoder's embedding


def _train_all_but_embeddings(whisper: TrimmedWhisper) -> None:
    _train_all(whisper)
    decoder = whisper.model.decoder
    decoder.embed_tokens.requires_grad_(False)  # and with it proj_out, whose weight it is
    decoder.embed_positions.requires_grad_(False)


def _train_adapter(whisper: TrimmedWhisper) -> None:
    """Keep what ``add_adapter`` chose: the adapter's weights."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to fine-tune a Whisper."""

    card: str
    """What the model card says after "fine-tuned"."""
    choose_weights: Callable[[TrimmedWhisper], None]
    """Makes the trained weights, and no others, require gradients, in place. An adapter has been added by then."""
    check: Callable[..., None] = _need_nothing
    """Called with ``has_gpu``; raises a ConfigError that names what the machine lacks."""
    distills: bool = False
    """Whether the model learns from its base, which reads the longest context, instead of from transcripts; see
    ``train/distillation.py``."""
    trains_adapter: bool = False
    """Whether the base stays as it is and the result is a LoRA adapter."""
    base_held_in: HeldIn = "fp32"
    rates: tuple[KnownRate, ...] = _RATES_BY_SIZE
    """At least one, by ascending size; a single one holds for all sizes."""
    gentler: str | None = None
    """The method to propose if a run forgot what its base knew; None if there is none."""


METHODS: Final[dict[str, Method]] = {
    "full": Method(card="in full", choose_weights=_train_all, gentler="frozen_encoder"),
    "frozen_encoder": Method(card="with its encoder frozen", choose_weights=_train_decoder),
    "frozen_embeddings": Method(card="with its embeddings frozen", choose_weights=_train_all_but_embeddings),
    "adapt_context": Method(
        card="to trimmed contexts by self-distillation, its encoder alone",
        choose_weights=_train_encoder,
        distills=True,
        rates=_DISTILLED_RATES,
    ),
    "lora": Method(
        card="by a LoRA adapter",
        choose_weights=_train_adapter,
        trains_adapter=True,
        base_held_in="compute",
        rates=_ADAPTER_RATES,
    ),
    "qlora": Method(
        card="by a LoRA adapter beside a base held in 4 bits",
        choose_weights=_train_adapter,
        check=_need_four_bit,
        trains_adapter=True,
        base_held_in="nf4",
        rates=_ADAPTER_RATES,
    ),
}

if TYPE_CHECKING:
    MethodName: TypeAlias = str
else:
    MethodName = Literal[tuple(METHODS)]
"""The names of the table: what the setting ``training.method`` accepts. Type checkers cannot compute a Literal."""


@dataclass(frozen=True)
class RateRange:
    """Learning rates that are not far from a known one."""

    lowest: float
    highest: float
    known: float
    source: str


def known_range(num_weights: int, method: MethodName) -> RateRange:
    """Compute the range of learning rates that are plausible for a model.

    Between two known sizes the rate is interpolated linearly in the logarithms of both; beyond them it is that of the
    nearest size.

    Args:
        num_weights: of the whole model, trained or not.
        method: a name of the table.
    """
    rates = METHODS[method].rates
    if len(rates) == 1:
        rate, source = rates[0].rate, rates[0].source
    else:
        sizes, values = zip(*((math.log(one.num_weights), math.log(one.rate)) for one in rates), strict=True)
        rate = math.exp(np.interp(math.log(num_weights), sizes, values))
        source = min(rates, key=lambda one: abs(math.log(one.num_weights / num_weights))).source
    return RateRange(lowest=rate * _LOWEST, highest=rate * _HIGHEST, known=rate, source=source)


def round_rate(rate: float) -> float:
    """Round a learning rate to three significant digits, as a person would write it."""
    return float(f"{rate:.3g}")


def find_rate_warnings(rate: float, *, method: MethodName, num_weights: int) -> tuple[str, ...]:
    """Compare a learning rate with those known to work.

    Args:
        rate: the peak learning rate of a run.
        method: a name of the table.
        num_weights: of the base model.

    Returns:
        One sentence if the rate is far outside the known range, else nothing.
    """
    known = known_range(num_weights, method)
    if known.lowest <= rate <= known.highest:
        return ()
    is_high = rate > known.highest
    consequence = "the model may forget what it knew, or diverge" if is_high else "the run may hardly learn"
    return (
        f"learning_rate {rate:g} is far {'above' if is_high else 'below'} what is known to work for method {method} on "
        f"a model of {num_weights / 1e6:.3g} million weights: about {known.known:.3g}, at least {known.lowest:.3g} and "
        f"at most {known.highest:.3g} ({known.source}); {consequence}",
    )


def check_method(name: MethodName, *, base: str, has_gpu: bool) -> None:
    """Check that a method can train a base model on this cluster, before anything starts.

    Args:
        name: of the method.
        base: checkpoint folder, Hub id or ``micro``.
        has_gpu: whether the run computes on a GPU.

    Raises:
        ConfigError: the machine lacks something; see ``Method.check``.
        CheckpointError: an adapter for a base that is itself an adapter, or no such base.
    """
    method = METHODS[name]
    method.check(has_gpu=has_gpu)
    if method.trains_adapter and is_adapter(resolve_folder(base)):
        raise CheckpointError(base, "it is itself an adapter; merge it first with python -m jobs.merge_adapter")


def describe_weights(name: MethodName, *, precision: str) -> str:
    """Describe, for the model card, the number types in which a run held its weights."""
    held = METHODS[name].base_held_in
    if held == "nf4":
        return "the base's matrices in 4 bits (NF4), the adapter's weights in fp32"
    if held == "compute" and precision != "fp32":
        return f"the base's matrices in {precision}, the adapter's weights in fp32"
    return "weights in fp32"
