from pathlib import Path

import pytest
from pydantic import ValidationError

from sottovoce.audio.augmentation.augment import AugmentConfig, Augmenter
from sottovoce.errors import ConfigError


@pytest.mark.parametrize("quantity", ["speed", "snr_db", "low_cut_hz", "high_cut_hz", "gain_db", "bit_rate_kbps"])
def test_a_range_the_wrong_way_round_is_named(quantity: str) -> None:
    highest = AugmentConfig.model_fields[f"max_{quantity}"].default
    with pytest.raises(
        ValidationError, match=f"min_{quantity} .* is above max_{quantity} .*; lower the first or raise"
    ):
        AugmentConfig.model_validate({f"min_{quantity}": 1.2 * highest})


def test_a_band_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_low_cut_hz 2500 is not below min_high_cut_hz 2000"):
        AugmentConfig(max_low_cut_hz=2_500.0)


@pytest.mark.parametrize(("probability", "folder"), [("background", "noise_folder"), ("room", "room_folder")])
def test_a_change_that_needs_a_folder_says_so(probability: str, folder: str) -> None:
    with pytest.raises(ValidationError, match=f"{probability}_probability needs {folder}"):
        AugmentConfig.model_validate({f"{probability}_probability": 0.5})


def test_a_folder_without_recordings_is_an_error_before_training_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"noise_folder .* holds no recordings"):
        Augmenter(AugmentConfig(background_probability=0.5, noise_folder=tmp_path))
    with pytest.raises(ConfigError, match=r"room_folder .* holds no recordings"):
        Augmenter(AugmentConfig(room_probability=0.5, room_folder=tmp_path))


def test_settings_survive_json() -> None:
    config = AugmentConfig(noise_folder=Path("noises"), codecs=("aac",))
    assert AugmentConfig.model_validate_json(config.model_dump_json()) == config
