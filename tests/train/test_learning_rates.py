from pathlib import Path

import pytest
import yaml

from sottovoce.errors import CheckpointError
from sottovoce.train.config import TrainingConfig, settle_rate
from sottovoce.train.methods import find_rate_warnings, known_range
from sottovoce.train.worker_model import count_weights

TINY, SMALL, MEDIUM, LARGE = 37_760_640, 241_734_912, 763_857_920, 1_543_304_960


@pytest.mark.parametrize(("num_weights", "rate"), [(TINY, 3.75e-5), (SMALL, 1.25e-5), (MEDIUM, 6.25e-6), (LARGE, 5e-6)])
def test_at_the_sizes_of_the_table_the_known_rate_is_the_tables(num_weights: int, rate: float) -> None:
    found = known_range(num_weights, "full")
    assert found.known == pytest.approx(rate, rel=1e-6)
    assert found.lowest < rate < found.highest


def test_between_two_sizes_the_rate_lies_between_theirs_and_beyond_the_ends_it_stays() -> None:
    assert 6.25e-6 < known_range(400_000_000, "full").known < 1.25e-5
    assert known_range(3_000_000_000, "full").known == pytest.approx(5e-6)
    assert known_range(1_000_000, "full").known == known_range(12_863_424, "full").known


@pytest.mark.parametrize("method", ["full", "frozen_encoder", "frozen_embeddings"])
def test_a_rate_far_too_high_is_one_warning_with_range_and_source(method: str) -> None:
    (warning,) = find_rate_warnings(1e-4, method=method, num_weights=SMALL)
    assert warning.startswith(f"learning_rate 0.0001 is far above what is known to work for method {method} on a model")
    assert "242 million weights: about 1.25e-05, at least 1.25e-06 and at most 6.25e-05" in warning
    assert "vasistalodagala" in warning


def test_a_rate_far_too_low_is_a_warning() -> None:
    (warning,) = find_rate_warnings(1e-7, method="full", num_weights=SMALL)
    assert "far below" in warning
    assert "hardly learn" in warning


def test_an_adapter_needs_a_higher_rate() -> None:
    assert find_rate_warnings(1e-3, method="lora", num_weights=LARGE) == ()
    assert find_rate_warnings(5e-6, method="lora", num_weights=LARGE) != ()


def test_where_no_rate_is_given_it_is_the_known_one_of_size_and_method() -> None:
    assert settle_rate(TrainingConfig(), SMALL).peak_lr == pytest.approx(1.25e-5, rel=0.01)
    assert settle_rate(TrainingConfig(method="lora"), SMALL).peak_lr == 1e-3
    assert settle_rate(TrainingConfig(learning_rate=3e-5), SMALL).peak_lr == 3e-5


def test_the_embedded_models_own_rates_and_the_default_give_no_warning() -> None:
    num_weights = count_weights("micro")
    assert num_weights == 12_863_424
    for config in (*(TrainingConfig(learning_rate=rate) for rate in (5e-4, 8e-4)), TrainingConfig()):
        rate = settle_rate(config, num_weights).peak_lr
        assert find_rate_warnings(rate, method=config.method, num_weights=num_weights) == ()


def test_no_recipe_causes_a_warning(root: Path) -> None:
    sizes = {"micro": 12_863_424, "small": SMALL, "large-v2": LARGE, "large-v3": LARGE}
    recipes = sorted((root / "jobs" / "recipes").glob("*.yaml"))
    found = 0
    for recipe in recipes:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        training = values.get("training") or values.get("walk", {}).get("training")
        base = (training or {}).get("base", "").removeprefix("openai/whisper-")
        if base in sizes and "learning_rate" in training:
            found += 1
            config = TrainingConfig.model_validate(training)
            warnings = find_rate_warnings(config.peak_lr, method=config.method, num_weights=sizes[base])
            assert warnings == (), recipe.name
    assert found


def test_a_base_that_is_not_there_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        count_weights(str(tmp_path))
