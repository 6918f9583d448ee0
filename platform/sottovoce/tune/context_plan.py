"""The audio contexts that a search compares, and the training runs of each."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from sottovoce.checkpoints.saver import checkpoints_below
from sottovoce.config import Config
from sottovoce.errors import ConfigError
from sottovoce.model.variants import Variant
from sottovoce.schema import MAX_CONTEXT_S, Split, Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.run import TrainingRun, build_run
from sottovoce.train.task import TrainingStream

FULL_CONTEXT = (MAX_CONTEXT_S, MAX_CONTEXT_S)
_STEP_S = 0.5  # contexts come in half seconds, see model/audio_context.py


class ContextSearchConfig(Config):
    """The contexts to compare, and the utterances to compare them on."""

    contexts: tuple[tuple[float, float], ...] = ()
    """Shortest and longest audio context [s] of each; the first one is the reference. Default: 30 s, and the range that
    the data needs."""
    num_seeds: int = Field(default=1, ge=1)
    """Runs of each context, with the training's seed and the following ones; a single run does not show how much WER
    varies by chance between runs."""
    split: Split = "test"
    """Split to score on; not validation, which has chosen the checkpoints."""
    variants: tuple[Variant, ...] = ("int8",)
    """ONNX variants to export and score besides torch."""
    max_wer_rise: float = Field(default=0.005, ge=0.0)
    """Largest accepted rise of WER from trimming, absolute: 0.005 is half a point."""
    scoring_repeats: int = Field(default=3, ge=1)
    """Times that each model is scored, in turn; RTFx is the median."""
    batch_size: int = Field(default=8, ge=1)
    """Windows in a batch of the recognizer."""
    num_threads: int = Field(default=1, ge=1)
    """CPU threads of the recognizers."""

    @model_validator(mode="after")
    def _check_contexts(self) -> "ContextSearchConfig":
        if len(self.contexts) == 1:
            raise ValueError("search.contexts must name two contexts at least, or none, to be compared")
        if len(set(self.contexts)) < len(self.contexts):
            raise ValueError("search.contexts names a context twice")
        for low, high in self.contexts:
            if not 0.0 < low <= high <= MAX_CONTEXT_S:
                raise ValueError(
                    f"search.contexts must each be 0 < shortest <= longest <= {MAX_CONTEXT_S:g}, not {low:g}, {high:g}"
                )
        return self


@dataclass(frozen=True)
class Arm:
    """One context and its runs."""

    context_s: tuple[float, float]
    runs: tuple[TrainingRun, ...]
    """One run for each seed."""


@dataclass(frozen=True)
class ContextSearch:
    """A comparison that is ready to start."""

    config: ContextSearchConfig
    training: TrainingConfig
    arms: tuple[Arm, ...]
    """The first one is the reference."""
    utterances: tuple[Utterance, ...]
    """The utterances to score on."""
    output: Path


def build_context_search(
    config: ContextSearchConfig,
    training: TrainingConfig,
    *,
    train: TrainingStream,
    validation: Sequence[Utterance],
    scored: Sequence[Utterance],
    output: Path,
) -> ContextSearch:
    """Build and check the runs of all contexts; they differ only in ``audio_context_s`` and the seed.

    Args:
        config: the contexts to compare.
        training: the settings that all runs share.
        train: the training split.
        validation: the utterances that choose each run's checkpoint.
        scored: the utterances that contexts are compared on.
        output: a folder that every worker can write to.

    Raises:
        ConfigError: there is nothing to score on, the context is also set in ``training``, or see ``build_run``.
        CheckpointError: there is no such base model.
    """
    if training.audio_context_s is not None:
        raise ConfigError("audio_context_s is searched: remove it from training and list it in search.contexts")
    if not scored:
        raise ConfigError(f"the manifest has no utterances in split {config.split}; name another as search.split")
    output = output.resolve()
    durations = [*train.durations_s.tolist(), *(one.duration_s for one in (*validation, *scored))]
    arms = []
    for context_s in config.contexts or (FULL_CONTEXT, needed_context(durations)):
        settings = [
            training.model_copy(
                update={
                    "audio_context_s": context_s,
                    "seed": training.seed + index,
                    "checkpoints": checkpoints_below(training.checkpoints, output.name, folder_name(context_s)),
                }
            )
            for index in range(config.num_seeds)
        ]
        runs = tuple(
            build_run(one, train=train, validation=validation, output=run_folder(output, context_s, one.seed))
            for one in settings
        )
        arms.append(Arm(context_s, runs))
    return ContextSearch(config, training, tuple(arms), tuple(scored), output)


def needed_context(durations_s: Iterable[float]) -> tuple[float, float]:
    """Return the narrowest range of contexts, in half seconds, that fits speech of these durations."""
    durations = sorted(durations_s)
    shortest, longest = (math.ceil((one - 1e-6) / _STEP_S) * _STEP_S for one in (durations[0], durations[-1]))
    return max(shortest, _STEP_S), min(max(longest, _STEP_S), MAX_CONTEXT_S)


def run_folder(output: Path, context_s: tuple[float, float], seed: int) -> Path:
    """Return the folder of one run."""
    return output / folder_name(context_s) / f"seed-{seed}"


def folder_name(context_s: tuple[float, float]) -> str:
    """Return the folder name of a context, ``2-6s``."""
    return name_context(context_s).replace(" ", "")


def name_context(context_s: tuple[float, float]) -> str:
    """Return the name of a context, ``2-6 s``."""
    shortest, longest = context_s
    return f"{longest:g} s" if shortest == longest else f"{shortest:g}-{longest:g} s"
