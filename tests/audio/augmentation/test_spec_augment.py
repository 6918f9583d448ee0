from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import ValidationError

from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig, draw_masks, mask_log_mel

FEATURES = np.random.default_rng(0).normal(size=(80, 200)).astype(np.float32)
BOTH = SpecAugmentConfig(num_time_masks=2, max_time_mask_fraction=0.2, num_mel_masks=2)


def mask(
    config: SpecAugmentConfig = BOTH,
    features: np.ndarray = FEATURES,
    *,
    seed: int = 0,
    epoch: int = 0,
    utterance_id: str = "a",
    num_frames: int = 200,
) -> np.ndarray:
    masks = draw_masks(
        config,
        seed=seed,
        epoch=epoch,
        utterance_id=utterance_id,
        num_frames=num_frames,
        num_mel_bins=features.shape[0],
    )
    return mask_log_mel(features, masks)


def runs(flags: np.ndarray) -> list[int]:
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    return [int(length) for length in edges[1::2] - edges[::2]]


def test_the_default_masks_nothing() -> None:
    assert np.array_equal(mask(SpecAugmentConfig()), FEATURES)


def test_time_masks_lie_in_the_speech_and_span_all_bins() -> None:
    config = SpecAugmentConfig(num_time_masks=2, max_time_mask_fraction=0.5)
    masked_anywhere = np.zeros(200, bool)
    for epoch in range(300):
        changed = mask(config, epoch=epoch, num_frames=60) != FEATURES
        assert np.array_equal(changed.any(axis=0), changed.all(axis=0))
        masked_anywhere |= changed.any(axis=0)
    assert masked_anywhere[:60].all()  # to the last frame of speech
    assert not masked_anywhere[60:].any()


@pytest.mark.parametrize("num_frames", [40, 100, 200])
def test_time_masks_are_as_long_as_a_part_of_the_speech_whatever_the_padding(num_frames: int) -> None:
    config = SpecAugmentConfig(num_time_masks=1, max_time_mask_fraction=0.25)
    lengths = [
        sum(runs((mask(config, epoch=epoch, num_frames=num_frames) != FEATURES).any(axis=0))) for epoch in range(300)
    ]
    assert max(lengths) == num_frames // 4
    assert min(lengths) == 0
    assert np.mean(lengths) == pytest.approx(num_frames / 8, rel=0.15)


def test_mel_masks_span_the_speech_and_are_no_wider_than_asked() -> None:
    config = SpecAugmentConfig(num_mel_masks=1, max_mel_mask_bins=10)
    widths = []
    for epoch in range(300):
        changed = mask(config, epoch=epoch, num_frames=60) != FEATURES
        assert not changed[:, 60:].any()
        assert np.array_equal(changed[:, :60].any(axis=1), changed[:, :60].all(axis=1))
        widths.append(sum(runs(changed.any(axis=1))))
    assert max(widths) == 10
    assert min(widths) == 0


def test_padding_is_never_counted() -> None:
    padded = np.concatenate([FEATURES[:, :120], np.full((80, 880), -9.0, np.float32)], axis=1)
    short, long = mask(features=FEATURES[:, :120], num_frames=120), mask(features=padded, num_frames=120)
    assert np.array_equal(short, long[:, :120])
    assert np.array_equal(long[:, 120:], padded[:, 120:])


def test_masked_values_are_the_mean_of_the_speech() -> None:
    features = np.concatenate([FEATURES[:, :100] + 3.0, np.full((80, 100), -9.0, np.float32)], axis=1)
    masked = mask(features=features, num_frames=100)
    changed = masked != features
    assert changed.any()
    assert masked[changed] == pytest.approx(features[:, :100].mean(), abs=1e-5)


def test_the_same_seed_epoch_and_id_give_the_same_masks_in_any_thread_and_others_give_others() -> None:
    first = mask()
    with ThreadPoolExecutor(8) as executor:
        again = list(executor.map(lambda _: mask(), range(64)))
    assert all(np.array_equal(first, one) for one in again)
    for other in (mask(seed=1), mask(epoch=1), mask(utterance_id="b")):
        assert not np.array_equal(first, other)


def test_masks_differ_in_every_epoch() -> None:
    assert len({mask(epoch=epoch).tobytes() for epoch in range(50)}) == 50


def test_global_random_state_is_neither_read_nor_changed() -> None:
    np.random.seed(1)
    first = mask()
    np.random.seed(2)
    before = np.random.get_state()[1].copy()
    assert np.array_equal(mask(), first)
    assert np.array_equal(np.random.get_state()[1], before)


def test_the_spectrogram_given_is_not_written_to() -> None:
    frozen = FEATURES.copy()
    frozen.setflags(write=False)
    masked = mask(features=frozen)
    assert masked.dtype == np.float32
    assert not np.array_equal(masked, frozen)


@pytest.mark.parametrize("num_frames", [-1, 0, 1, 2])
def test_hardly_any_speech_is_masked_without_complaint(num_frames: int) -> None:
    masked = mask(num_frames=num_frames)
    assert np.isfinite(masked).all()
    assert np.array_equal(masked[:, max(0, num_frames) :], FEATURES[:, max(0, num_frames) :])


def test_bands_fit_spectrograms_with_few_bins() -> None:
    masked = mask(SpecAugmentConfig(num_mel_masks=3, max_mel_mask_bins=80), FEATURES[:8])
    assert masked.shape == (8, 200)


def test_masks_longer_than_half_the_speech_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"less than or equal to 0.5"):
        SpecAugmentConfig(max_time_mask_fraction=0.6)
