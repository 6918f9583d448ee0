"""Mask parts of a log-mel picture in training: SpecAugment.

Shapes: M mel bins, F frames.
"""

import numpy as np
from pydantic import Field

from sottovoce.audio.augment import utterance_generator
from sottovoce.config import Config
from sottovoce.schema import LogMel


class SpecAugmentConfig(Config):
    """Which masks are laid over the pictures of training speech; none unless they are asked for."""

    num_time_masks: int = Field(default=0, ge=0)
    """Stretches of time masked; 2 is usual."""
    max_time_mask_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    """Longest time mask, as a part of the speech (not of the padding)."""
    num_mel_masks: int = Field(default=0, ge=0)
    """Bands of mel bins masked; 2 is usual."""
    max_mel_mask_bins: int = Field(default=10, ge=0, le=80)
    """Widest band."""


def mask_log_mel(
    features: LogMel, config: SpecAugmentConfig, *, seed: int, epoch: int, utterance_id: str, num_frames: int
) -> LogMel:
    """Mask stretches of time and bands of mel bins, the same ones for the same seed, epoch and utterance.

    Masked values become the mean of the frames that hold speech. The paper writes zero into pictures of zero mean,
    so this is its value for Whisper's pictures, which are not centred. Zero itself would be an absolute level there,
    louder than everything in a soft recording; and the picture's minimum would be digital silence, which is as much
    a statement about the speech as any sound, and a much harder edge.

    Args:
        features: (M, F).
        config: how many masks and how large.
        seed: of the run.
        epoch: how often the utterance was read before.
        utterance_id: whose picture this is.
        num_frames: frames that hold speech, from the first on: the attention mask. Masks are placed and measured, and
            the mean is taken, in these; the padding behind them stays as it is.

    Returns:
        (M, F), a changed copy; ``features`` itself where no mask is asked for.

    Source: Park et al. 2019, SpecAugment, without time warping; the longest time mask is a part of the length, as in
    Park et al. 2020, SpecAugment on Large Scale Datasets.
    """
    num_mel_bins, num_frames = features.shape[0], min(num_frames, features.shape[1])
    if num_frames <= 0 or not (config.num_time_masks or config.num_mel_masks):
        return features
    generator = utterance_generator("spec_augment", seed=seed, epoch=epoch, utterance_id=utterance_id)
    masked = features.copy()
    speech = masked[:, :num_frames]  # a view: what is written here is written to the copy
    mean = np.ascontiguousarray(speech).mean(dtype=np.float64)  # contiguous: padding must not change the order of sums
    max_width = int(config.max_time_mask_fraction * num_frames)
    for _ in range(config.num_time_masks):
        width = int(generator.integers(0, max_width, endpoint=True))
        start = int(generator.integers(0, num_frames - width, endpoint=True))
        speech[:, start : start + width] = mean
    for _ in range(config.num_mel_masks):
        width = int(generator.integers(0, min(config.max_mel_mask_bins, num_mel_bins), endpoint=True))
        start = int(generator.integers(0, num_mel_bins - width, endpoint=True))
        speech[start : start + width] = mean
    return masked
