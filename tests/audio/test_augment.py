import numpy as np
import pytest

from sottovoce.audio.augment import AugmentConfig, augment_generator, augment_waveform, mask_log_mel

TONE = (0.3 * np.sin(np.arange(16_000) * 0.1)).astype(np.float32)
LIMIT = 32_000


def generator(*, epoch: int = 0, utterance_id: str = "a") -> np.random.Generator:
    return augment_generator(seed=0, epoch=epoch, utterance_id=utterance_id)


def test_nothing_changes_when_all_is_off() -> None:
    assert np.array_equal(augment_waveform(TONE, AugmentConfig(), generator(), max_num_samples=LIMIT), TONE)
    features = np.random.default_rng(0).normal(size=(80, 100)).astype(np.float32)
    assert np.array_equal(mask_log_mel(features, AugmentConfig(), generator(), num_frames=100), features)


def test_the_same_utterance_and_epoch_give_the_same_change_and_others_another() -> None:
    config = AugmentConfig(gain_db=6.0, noise_probability=1.0)
    first, again, next_epoch, other = (
        augment_waveform(TONE, config, one, max_num_samples=LIMIT)
        for one in (generator(), generator(), generator(epoch=1), generator(utterance_id="b"))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_epoch)
    assert not np.array_equal(first, other)


def test_speed_changes_the_length_within_its_range() -> None:
    config = AugmentConfig(speed_range=0.1)
    lengths = [len(augment_waveform(TONE, config, generator(epoch=i), max_num_samples=LIMIT)) for i in range(50)]
    assert min(lengths) >= 16_000 / 1.1 - 2
    assert max(lengths) <= 16_000 / 0.9 + 2
    assert np.std(lengths) > 300


def test_speech_is_never_slowed_beyond_the_models_context() -> None:
    config = AugmentConfig(speed_range=0.1)
    lengths = [len(augment_waveform(TONE, config, generator(epoch=i), max_num_samples=16_000)) for i in range(50)]
    assert max(lengths) <= 16_000


def test_noise_has_the_asked_ratio() -> None:
    config = AugmentConfig(noise_probability=1.0, min_snr_db=10.0, max_snr_db=10.0)
    noise = augment_waveform(TONE, config, generator(), max_num_samples=LIMIT) - TONE
    ratio_db = 10 * np.log10(np.mean(TONE**2) / np.mean(noise**2))
    assert ratio_db == pytest.approx(10.0, abs=0.3)


def test_loud_speech_is_clipped_and_stays_float32() -> None:
    louder = [
        augment_waveform(TONE, AugmentConfig(gain_db=40.0), generator(epoch=i), max_num_samples=LIMIT) for i in range(9)
    ]
    assert all(np.abs(one).max() <= 1.0 and one.dtype == np.float32 for one in louder)


def test_time_masks_lie_in_the_speech_and_mel_masks_span_all_of_it() -> None:
    features = np.random.default_rng(0).normal(size=(80, 200)).astype(np.float32)
    times = AugmentConfig(num_time_masks=2, max_time_mask_fraction=0.5)
    masked = mask_log_mel(features, times, generator(), num_frames=60)
    changed = (masked != features).any(axis=0)
    assert changed[:60].any()
    assert not changed[60:].any()
    bands = mask_log_mel(features, AugmentConfig(num_mel_masks=2), generator(), num_frames=60)
    blank = (bands == features.min()).all(axis=1)
    assert 0 < blank.sum() <= 20


def test_an_empty_recording_stays_empty() -> None:
    config = AugmentConfig(speed_range=0.1, noise_probability=1.0)
    assert len(augment_waveform(np.zeros(0, np.float32), config, generator(), max_num_samples=LIMIT)) == 0
