"""Mask parts of a log-mel spectrogram in training: SpecAugment.

Shapes: M mel bins, F frames.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from sottovoce.audio.augmentation.augment import utterance_generator
from sottovoce.config import Config
from sottovoce.schema import LogMel


class SpecAugmentConfig(Config):
    """The masks on spectrograms of training speech; none by default."""

    num_time_masks: int = Field(default=0, ge=0)
    """Number of time masks; 2 is usual."""
    max_time_mask_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    """Longest time mask, as a fraction of the speech without padding."""
    num_mel_masks: int = Field(default=0, ge=0)
    """Number of masked bands of mel bins; 2 is usual."""
    max_mel_mask_bins: int = Field(default=10, ge=0, le=80)
    """Widest band, in mel bins."""


@dataclass(frozen=True)
class Masks:
    """The masks of one spectrogram."""

    frames: tuple[tuple[int, int], ...]
    """Time masks: first and last-plus-one frame."""
    bins: tuple[tuple[int, int], ...]
    """Bands: lowest and highest-plus-one mel bin."""
    num_frames: int
    """Frames of speech, from the first on; the padding after them is not masked."""


def draw_masks(
    config: SpecAugmentConfig, *, seed: int, epoch: int, utterance_id: str, num_frames: int, num_mel_bins: int
) -> Masks:
    """Sample the masks of a spectrogram, determined by seed, epoch and utterance.

    Args:
        config: how many masks and how large.
        seed: of the run.
        epoch: how often the utterance was read before.
        utterance_id: of the spectrogram's utterance.
        num_frames: frames of speech; masks lie in these, not in the padding, and their lengths refer to them.
        num_mel_bins: of the spectrogram.

    Source: Park et al. 2019, SpecAugment, without time warping; the longest time mask is a fraction of the length, as
    in Park et al. 2020, SpecAugment on Large Scale Datasets.
    """
    if num_frames <= 0 or not (config.num_time_masks or config.num_mel_masks):
        return Masks((), (), max(0, num_frames))
    generator = utterance_generator("spec_augment", seed=seed, epoch=epoch, utterance_id=utterance_id)

    def stretch(longest: int, size: int) -> tuple[int, int]:
        width = int(generator.integers(0, longest, endpoint=True))
        start = int(generator.integers(0, size - width, endpoint=True))
        return start, start + width

    longest_time = int(config.max_time_mask_fraction * num_frames)
    widest_band = min(config.max_mel_mask_bins, num_mel_bins)
    return Masks(
        frames=tuple(stretch(longest_time, num_frames) for _ in range(config.num_time_masks)),
        bins=tuple(stretch(widest_band, num_mel_bins) for _ in range(config.num_mel_masks)),
        num_frames=num_frames,
    )


def mask_log_mel(features: LogMel, masks: Masks) -> LogMel:
    """Apply masks to a spectrogram.

    Masked values become the mean of the frames of speech. The paper uses zero for spectrograms of zero mean; the mean
    is the same value for Whisper's spectrograms, which are not centred. There, zero would be an absolute level, louder
    than everything in a soft recording. The spectrogram's minimum would be digital silence, with harder edges.

    Args:
        features: (M, F).
        masks: from ``draw_masks``.

    Returns:
        (M, F), a masked copy; ``features`` itself without masks.
    """
    if not (masks.frames or masks.bins):
        return features
    masked = features.copy()
    speech = masked[:, : masks.num_frames]  # a view: what is written here is written to the copy
    mean = np.ascontiguousarray(speech).mean(dtype=np.float64)  # contiguous: padding must not change the order of sums
    for start, stop in masks.frames:
        speech[:, start:stop] = mean
    for start, stop in masks.bins:
        speech[start:stop] = mean
    return masked
