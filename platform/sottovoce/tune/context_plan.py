"""Which contexts are compared, and the run of Ray Train behind each."""

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
from sottovoce.train.microbatches import TrainingStream
from sottovoce.train.run import TrainingRun, build_run

FULL_CONTEXT = (MAX_CONTEXT_S, MAX_CONTEXT_S)
_STEP_S = 0.5  # contexts come in half seconds, see model/context.py


class ContextSearchConfig(Config):
    """Which contexts to compare, and on what."""

    contexts: tuple[tuple[float, float], ...] = ()
    """Shortest and longest audio context [s] of each; the first is what the others are held against. Where none are
    given: 30 s, and the range the data needs."""
    num_seeds: int = Field(default=1, ge=1)
    """Trainings of each context, with the training's seed and those after it: one alone says nothing of how much WER
    changes by chance from training to training."""
    split: Split = "test"
    """Utterances to score on: those of the validation split have chosen the checkpoints."""
    variants: tuple[Variant, ...] = ("int8",)
    """ONNX variants to export and score besides torch."""
    max_wer_rise: float = Field(default=0.005, ge=0.0)
    """How much WER trimming may cost, absolute: 0.005 is half a point."""
    scoring_repeats: int = Field(default=3, ge=1)
    """Times each model is scored, in turn; RTFx is the median."""
    batch_size: int = Field(default=8, ge=1)
    """Windows recognized at once."""
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
    """One context and its trainings."""

    context_s: tuple[float, float]
    runs: tuple[TrainingRun, ...]
    """One for each seed."""


@dataclass(frozen=True)
class ContextSearch:
    """A comparison that is ready to start."""

    config: ContextSearchConfig
    training: TrainingConfig
    arms: tuple[Arm, ...]
    """The first is what the others are held against."""
    utterances: tuple[Utterance, ...]
    """To score on."""
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
    """Check the runs of all contexts: the same data, seeds, steps and batches, another ``audio_context_s``.

    Args:
        config: what to compare.
        training: all that the runs share.
        train: the training split.
        validation: chooses each run's checkpoint.
        scored: what the contexts are compared on.
        output: folder every worker can write to.

    Raises:
        ConfigError: nothing to score on, contexts set twice, or see ``build_run``.
        CheckpointError: no such base model.
    """
    if training.audio_context_s is not None:
        raise ConfigError("audio_context_s is what is searched: leave it out of training, name it in search.contexts")
    if not scored:
        raise ConfigError(f"the manifest has no utterances in split {config.split}; name another as search.split")
    output = output.resolve()
    durations = [*(one.duration_s for one in train.examples), *(one.duration_s for one in (*validation, *scored))]
    arms = []
    for context_s in config.contexts or (FULL_CONTEXT, needed_context(durations)):
        settings = [
            training.model_copy(
                update={
                    "audio_context_s": context_s,
                    "seed": training.seed + place,
                    "checkpoints": checkpoints_below(training.checkpoints, output.name, folder_name(context_s)),
                }
            )
            for place in range(config.num_seeds)
        ]
        runs = tuple(
            build_run(one, train=train, validation=validation, output=run_folder(output, context_s, one.seed))
            for one in settings
        )
        arms.append(Arm(context_s, runs))
    return ContextSearch(config, training, tuple(arms), tuple(scored), output)


def needed_context(durations_s: Iterable[float]) -> tuple[float, float]:
    """Give the narrowest range of half seconds that holds speech of these lengths."""
    durations = sorted(durations_s)
    shortest, longest = (math.ceil((one - 1e-6) / _STEP_S) * _STEP_S for one in (durations[0], durations[-1]))
    return max(shortest, _STEP_S), min(max(longest, _STEP_S), MAX_CONTEXT_S)


def run_folder(output: Path, context_s: tuple[float, float], seed: int) -> Path:
    """Give the folder of one training."""
    return output / folder_name(context_s) / f"seed-{seed}"


def folder_name(context_s: tuple[float, float]) -> str:
    """Name a context's folder, as in ``2-6s``."""
    return name_context(context_s).replace(" ", "")


def name_context(context_s: tuple[float, float]) -> str:
    """Name a context, as in ``2-6 s``."""
    shortest, longest = context_s
    return f"{longest:g} s" if shortest == longest else f"{shortest:g}-{longest:g} s"
