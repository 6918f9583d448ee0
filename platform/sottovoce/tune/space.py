"""The search space of a search, and the settings of its trials, sampled before the first trial starts."""

import math

import numpy as np
from pydantic import Field, model_validator

from sottovoce.config import Config
from sottovoce.errors import ConfigError
from sottovoce.schema import Record
from sottovoce.train.config import TrainingConfig
from sottovoce.train.methods import known_range
from sottovoce.train.worker_model import count_weights


class SearchConfig(Config):
    """Ranges to search, number of trials, and when a trial is pruned."""

    learning_rate: tuple[float, float] | None = None
    """Lowest and highest peak learning rate, sampled uniformly on a log scale. Default: a range around the rates that
    are known to work for the size of the base model and the method."""
    warmup_steps: tuple[int, ...] = ()
    """Values to choose from. Default: the value of the training's settings."""
    lora_rank: tuple[int, ...] = ()
    """Values to choose from if the method trains an adapter; alpha keeps its ratio to the rank."""
    num_trials: int = Field(default=9, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials that run at a time. Default: as many as the cluster has room for."""
    grace_evaluations: int = Field(default=1, ge=1)
    """Evaluations after the first step before a trial may be pruned."""
    reduction: float = Field(default=3.0, gt=1.0)
    """At each rung (``grace_evaluations``, then that times this factor, ...), about one trial in so many continues."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of trials that have ended; those of a large model take many gigabytes."""
    seed: int = 0
    """Seed of the sampled settings; data and weights use the training's own seed, the same in every trial."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "SearchConfig":
        if self.learning_rate is not None and not 0.0 < self.learning_rate[0] <= self.learning_rate[1]:
            low, high = self.learning_rate
            raise ValueError(f"search.learning_rate must be 0 < lowest <= highest, not {low:g}, {high:g}")
        if any(steps < 0 for steps in self.warmup_steps):
            raise ValueError(f"search.warmup_steps must be 0 or more, not {min(self.warmup_steps)}")
        if any(rank < 1 for rank in self.lora_rank):
            raise ValueError(f"search.lora_rank must be 1 or more, not {min(self.lora_rank)}")
        return self


class TrialSettings(Record):
    """The settings of one trial, which replace those of the training."""

    learning_rate: float
    warmup_steps: int
    lora_rank: int | None = None
    """None if the method trains no adapter."""

    def describe(self) -> str:
        """Describe the settings in a few words."""
        rank = "" if self.lora_rank is None else f", rank {self.lora_rank}"
        return f"learning rate {self.learning_rate:.2e}, warm-up {self.warmup_steps}{rank}"


def complete_ranges(config: SearchConfig, training: TrainingConfig) -> SearchConfig:
    """Fill in the range of learning rates if none is given.

    Raises:
        CheckpointError: there is no such base model.
    """
    if config.learning_rate is not None:
        return config
    known = known_range(count_weights(training.base), training.method)
    lowest, highest = (float(f"{rate:.2g}") for rate in (known.lowest, known.highest))
    return config.model_copy(update={"learning_rate": (lowest, highest)})


def sample_settings(config: SearchConfig, training: TrainingConfig) -> tuple[TrialSettings, ...]:
    """Sample the settings of all trials.

    The range of learning rates is cut into as many slices as there are trials, and each trial samples from its own. The
    other choices are assigned in turn, so that each occurs about equally often. Both are in random order.

    Args:
        config: its range of learning rates must be filled in.
        training: the settings that are not searched.

    Source: McKay, Beckman and Conover 1979 (Latin hypercube sampling).

    Raises:
        ConfigError: there is nothing to search, or ranks are given for a method without an adapter.
    """
    assert config.learning_rate is not None, "complete_ranges fills it in"
    _check(config, training)
    generator = np.random.default_rng(config.seed)
    num_trials = config.num_trials
    low, high = config.learning_rate
    positions = (generator.permutation(num_trials) + generator.random(num_trials)) / num_trials
    rates = np.exp(math.log(low) + positions * math.log(high / low))
    warmups = _deal(config.warmup_steps or (training.warmup_steps,), num_trials, generator)
    own_rank = training.lora.rank if training.trains_adapter else None
    ranks = _deal(config.lora_rank, num_trials, generator) if config.lora_rank else [own_rank] * num_trials
    return tuple(
        TrialSettings(learning_rate=float(f"{rate:.4g}"), warmup_steps=warmup, lora_rank=rank)
        for rate, warmup, rank in zip(rates, warmups, ranks, strict=True)
    )


def apply_settings(training: TrainingConfig, settings: TrialSettings) -> TrainingConfig:
    """Replace the training's settings by those of a trial."""
    lora = training.lora
    if settings.lora_rank is not None:
        # an adapter is scaled by alpha / rank: keep that ratio as nearly as integers can, to compare ranks alone
        alpha = max(1, round(lora.alpha * settings.lora_rank / lora.rank))
        lora = lora.model_copy(update={"rank": settings.lora_rank, "alpha": alpha})
    return training.model_copy(
        update={"learning_rate": settings.learning_rate, "warmup_steps": settings.warmup_steps, "lora": lora}
    )


def _check(config: SearchConfig, training: TrainingConfig) -> None:
    if config.lora_rank and not training.trains_adapter:
        raise ConfigError(
            f"search.lora_rank names ranks, but method {training.method} trains no adapter; set method to lora"
        )
    choices = (set(config.learning_rate or ()), set(config.warmup_steps), set(config.lora_rank))
    if config.num_trials > 1 and all(len(values) < 2 for values in choices):
        raise ConfigError("there is nothing to search: give a range to search.learning_rate, as in 1e-5 1e-3")


def _deal(choices: tuple[int, ...], num_trials: int, generator: np.random.Generator) -> list[int]:
    dealt = [choices[index % len(choices)] for index in range(num_trials)]
    return [dealt[index] for index in generator.permutation(num_trials)]
