"""Settings are sampled before the first trial starts: reproducibly, and spread over the whole range."""

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from sottovoce.errors import ConfigError
from sottovoce.train.config import TrainingConfig
from sottovoce.train.methods import known_range
from sottovoce.train.worker_model import count_weights
from sottovoce.tune.space import (
    SearchConfig,
    TrialSettings,
    apply_settings,
    complete_ranges,
    sample_settings,
)

RATES = (1e-6, 1e-3)


def test_each_trial_samples_its_learning_rate_from_its_own_slice_of_the_range() -> None:
    sampled = sample_settings(SearchConfig(learning_rate=RATES, num_trials=6), TrainingConfig())
    slices = sorted(math.log10(one.learning_rate / RATES[0]) / 3 * 6 for one in sampled)
    assert [int(index) for index in slices] == [0, 1, 2, 3, 4, 5]
    assert [one.learning_rate for one in sampled] != sorted(one.learning_rate for one in sampled)


def test_choices_come_about_equally_often() -> None:
    config = SearchConfig(learning_rate=RATES, warmup_steps=(0, 50), num_trials=5)
    warmups = [one.warmup_steps for one in sample_settings(config, TrainingConfig())]
    assert sorted(warmups) == [0, 0, 0, 50, 50]


def test_the_same_seed_samples_the_same_and_another_seed_something_else() -> None:
    config = SearchConfig(learning_rate=RATES, num_trials=4)
    sampled = sample_settings(config, TrainingConfig())
    assert sample_settings(config, TrainingConfig()) == sampled
    assert sample_settings(config.model_copy(update={"seed": 1}), TrainingConfig()) != sampled


def test_what_is_not_searched_stays_the_trainings_own() -> None:
    sampled = sample_settings(SearchConfig(learning_rate=RATES, num_trials=2), TrainingConfig(warmup_steps=7))
    assert {one.warmup_steps for one in sampled} == {7}
    assert {one.lora_rank for one in sampled} == {None}


def test_one_learning_rate_leaves_the_other_settings_to_be_compared() -> None:
    config = SearchConfig(learning_rate=(3e-4, 3e-4), warmup_steps=(1, 2), num_trials=2)
    assert {one.learning_rate for one in sample_settings(config, TrainingConfig())} == {3e-4}


def test_learning_rates_are_searched_around_what_is_known_where_no_range_is_given(micro_assets: Path) -> None:
    known = known_range(count_weights(str(micro_assets)), "full")
    assert known.source
    low, high = complete_ranges(SearchConfig(), TrainingConfig(base=str(micro_assets))).learning_rate or (0.0, 0.0)
    assert (low, high) == pytest.approx((known.lowest, known.highest), rel=0.05)
    assert complete_ranges(SearchConfig(learning_rate=RATES), TrainingConfig()).learning_rate == RATES


def test_an_adapter_keeps_its_scale_whatever_its_rank() -> None:
    training = TrainingConfig.model_validate({"method": "lora", "lora": {"rank": 8, "alpha": 16}})
    config = SearchConfig(learning_rate=RATES, lora_rank=(4, 32), num_trials=4)
    trials = [apply_settings(training, one) for one in sample_settings(config, training)]
    assert sorted((trial.lora.rank, trial.lora.alpha) for trial in trials) == [(4, 8), (4, 8), (32, 64), (32, 64)]


@pytest.mark.parametrize(
    ("rank", "alpha", "new_rank", "expected"), [(16, 8, 1, 1), (48, 32, 7, 5), (48, 32, 20, 13), (12, 20, 9, 15)]
)
def test_alpha_is_the_nearest_whole_number_and_never_none(rank: int, alpha: int, new_rank: int, expected: int) -> None:
    training = TrainingConfig.model_validate({"method": "lora", "lora": {"rank": rank, "alpha": alpha}})
    trial = apply_settings(training, TrialSettings(learning_rate=1e-4, warmup_steps=0, lora_rank=new_rank))
    assert (trial.lora.rank, trial.lora.alpha) == (new_rank, expected)
    assert TrainingConfig.model_validate(trial.model_dump()) == trial


def test_an_adapter_whose_rank_is_not_searched_keeps_its_own() -> None:
    training = TrainingConfig.model_validate({"method": "lora", "lora": {"rank": 8, "alpha": 16}})
    sampled = sample_settings(SearchConfig(learning_rate=RATES, num_trials=2), training)
    assert {one.lora_rank for one in sampled} == {8}
    assert apply_settings(training, sampled[0]).lora == training.lora


def test_settings_of_a_trial_replace_those_of_the_training() -> None:
    settings = TrialSettings(learning_rate=2e-5, warmup_steps=3)
    training = apply_settings(TrainingConfig(num_epochs=4), settings)
    assert (training.learning_rate, training.warmup_steps, training.num_epochs) == (2e-5, 3, 4)
    assert settings.describe() == "learning rate 2.00e-05, warm-up 3"


def test_ranks_without_an_adapter_are_refused() -> None:
    with pytest.raises(ConfigError, match="method full trains no adapter; set method to lora"):
        sample_settings(SearchConfig(learning_rate=RATES, lora_rank=(4, 8)), TrainingConfig())


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        sample_settings(SearchConfig(learning_rate=(1e-4, 1e-4), warmup_steps=(5,)), TrainingConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": (1e-3, 1e-5)}, "lowest <= highest, not 0.001, 1e-05"),
        ({"warmup_steps": (5, -1)}, "0 or more, not -1"),
        ({"lora_rank": (0,)}, "1 or more, not 0"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchConfig.model_validate(values)
