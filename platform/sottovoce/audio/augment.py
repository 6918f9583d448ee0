"""Change training speech a little, in numpy, the same way for the same seed, epoch and utterance.

Shapes: S samples, M mel bins, F frames.
"""

import zlib

import numpy as np
import soxr
from pydantic import Field

from sottovoce.config import Config
from sottovoce.schema import SAMPLING_RATE, LogMel, Waveform


class AugmentConfig(Config):
    """Which changes training speech goes through; all off gives the recordings as they are."""

    speed_range: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Play faster or slower by up to this fraction, pitch included; 0.1 is usual."""
    gain_db: float = Field(default=0.0, ge=0.0, le=40.0)
    """Louder or softer by up to this many decibels."""
    noise_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Part of the utterances that get white noise."""
    min_snr_db: float = 10.0
    """Loudest noise, as signal-to-noise ratio."""
    max_snr_db: float = 40.0
    """Softest noise."""
    num_time_masks: int = Field(default=0, ge=0)
    """SpecAugment: stretches of time blanked; 2 is usual."""
    max_time_mask_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    """Longest time mask, as a part of the speech (not of the padding)."""
    num_mel_masks: int = Field(default=0, ge=0)
    """SpecAugment: bands of mel bins blanked; 2 is usual."""
    max_mel_mask_bins: int = Field(default=10, ge=0, le=80)
    """Widest band."""


def augment_generator(*, seed: int, epoch: int, utterance_id: str) -> np.random.Generator:
    """Give the randomness of one utterance in one epoch, whichever rank reads it."""
    return np.random.default_rng([seed, epoch, zlib.crc32(utterance_id.encode())])


def augment_waveform(
    waveform: Waveform, config: AugmentConfig, generator: np.random.Generator, *, max_num_samples: int
) -> Waveform:
    """Change speed, level and noise.

    Args:
        waveform: (S,) float32.
        config: which changes.
        generator: from ``augment_generator``.
        max_num_samples: the model's longest context; speech is not slowed beyond it.

    Returns:
        (S,) float32 in [-1, 1]; S changes with the speed.
    """
    speed = 1.0 + generator.uniform(-config.speed_range, config.speed_range)
    gain_db = generator.uniform(-config.gain_db, config.gain_db)
    snr_db = generator.uniform(config.min_snr_db, config.max_snr_db)
    is_noisy = generator.random() < config.noise_probability
    if config.speed_range and len(waveform) / speed <= max_num_samples - 1:
        resampled: Waveform = soxr.resample(waveform, SAMPLING_RATE * speed, SAMPLING_RATE, quality="MQ")
        waveform = resampled[:max_num_samples]
    if is_noisy:
        power = float(np.mean(np.square(waveform))) if len(waveform) else 0.0
        deviation = np.sqrt(power * 10.0 ** (-snr_db / 10.0))
        waveform = waveform + generator.normal(0.0, deviation, len(waveform)).astype(np.float32)
    louder: Waveform = waveform * np.float32(10.0 ** (gain_db / 20.0))
    return np.clip(louder, -1.0, 1.0)


def mask_log_mel(features: LogMel, config: AugmentConfig, generator: np.random.Generator, *, num_frames: int) -> LogMel:
    """Blank stretches of time and bands of mel bins.

    Args:
        features: (M, F).
        config: how many and how large.
        generator: from ``augment_generator``.
        num_frames: frames that hold speech; time masks are placed and measured there, not in the padding.

    Returns:
        (M, F), a changed copy; blank is the quietest value of the picture.

    Source: Park et al. 2019, SpecAugment, without time warping.
    """
    masked = features.copy()
    blank = features.min()
    for _ in range(config.num_time_masks):
        width = int(generator.uniform(0.0, config.max_time_mask_fraction) * num_frames)
        start = int(generator.integers(0, max(1, num_frames - width + 1)))
        masked[:, start : start + width] = blank
    for _ in range(config.num_mel_masks):
        width = int(generator.integers(0, config.max_mel_mask_bins + 1))
        start = int(generator.integers(0, max(1, features.shape[0] - width + 1)))
        masked[start : start + width] = blank
    return masked
