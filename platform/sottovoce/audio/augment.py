"""Change training speech a little: speed, rooms, noise, band, level and codecs.

What changes is drawn first (``Augmenter.draw``), from the seed, the epoch and the utterance's id alone, and carried out
second (``Augmenter.apply``), without a draw. So it is the same in any process or thread, whatever ran before, and no
global random state is read or written.

Shapes: S samples.
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
from pydantic import Field, model_validator

from sottovoce.config import Config
from sottovoce.schema import SAMPLING_RATE, LogMel, Waveform

_MAX_CUT_HZ = 7_600.0  # below half the sampling rate, where a Butterworth filter is still well-behaved
_ROLLOFF_DB_PER_OCTAVE = 48  # a telephone line's edges are at least as steep; more rings audibly (guess)


class AugmentConfig(Config):
    """Which changes training speech goes through, in this order; all off gives the recordings as they are."""

    speed_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Part of the utterances played faster or slower, pitch included."""
    min_speed: float = Field(default=0.9, ge=0.5, le=2.0)
    """Slowest, as a factor; 0.9 and 1.1 are usual."""
    max_speed: float = Field(default=1.1, ge=0.5, le=2.0)
    """Fastest, as a factor."""
    noise_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Part of the utterances that get white noise."""
    min_snr_db: float = Field(default=10.0, ge=-20.0, le=100.0)
    """Loudest noise of either kind, as signal-to-noise ratio over the whole utterance [dB]."""
    max_snr_db: float = Field(default=40.0, ge=-20.0, le=100.0)
    """Softest noise of either kind [dB]."""
    band_limit_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Part of the utterances heard as through a telephone or a throat microphone."""
    min_low_cut_hz: float = Field(default=50.0, ge=20.0, le=_MAX_CUT_HZ)
    """Lowest bass cut [Hz]; a telephone cuts below 300."""
    max_low_cut_hz: float = Field(default=300.0, ge=20.0, le=_MAX_CUT_HZ)
    """Highest bass cut [Hz]."""
    min_high_cut_hz: float = Field(default=2_000.0, ge=20.0, le=_MAX_CUT_HZ)
    """Lowest treble cut [Hz]; skin and bone pass little above 2 000."""
    max_high_cut_hz: float = Field(default=4_000.0, ge=20.0, le=_MAX_CUT_HZ)
    """Highest treble cut [Hz]; a telephone cuts above 3 400."""
    gain_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Part of the utterances made louder or softer."""
    min_gain_db: float = Field(default=-6.0, ge=-60.0, le=60.0)
    """Softest change of level [dB]."""
    max_gain_db: float = Field(default=6.0, ge=-60.0, le=60.0)
    """Loudest change of level [dB]; what leaves [-1, 1] is clipped, as an overloaded microphone does."""

    speed_range: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Read by ``augment_waveform`` only, and goes with it."""
    gain_db: float = Field(default=0.0, ge=0.0, le=40.0)
    """Read by ``augment_waveform`` only, and goes with it."""
    num_time_masks: int = Field(default=0, ge=0)
    """Moved to SpecAugmentConfig; goes with ``augment_waveform``."""
    max_time_mask_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    """Moved to SpecAugmentConfig; goes with ``augment_waveform``."""
    num_mel_masks: int = Field(default=0, ge=0)
    """Moved to SpecAugmentConfig; goes with ``augment_waveform``."""
    max_mel_mask_bins: int = Field(default=10, ge=0, le=80)
    """Moved to SpecAugmentConfig; goes with ``augment_waveform``."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "AugmentConfig":
        for low, high in _RANGES:
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low):g} is above {high} {getattr(self, high):g}; give the lower one first"
                )
        if self.max_low_cut_hz >= self.min_high_cut_hz:
            raise ValueError(
                f"max_low_cut_hz {self.max_low_cut_hz:g} leaves nothing below min_high_cut_hz {self.min_high_cut_hz:g};"
                " the bass cut must lie below the treble cut"
            )
        return self


_RANGES = (
    ("min_speed", "max_speed"),
    ("min_snr_db", "max_snr_db"),
    ("min_low_cut_hz", "max_low_cut_hz"),
    ("min_high_cut_hz", "max_high_cut_hz"),
    ("min_gain_db", "max_gain_db"),
)

Change = Literal["speed", "noise", "white_noise", "band_limit", "gain", "spec_augment"]
"""What a draw is for; each has randomness of its own, so that switching one on leaves the others as they were."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What one utterance goes through in one epoch, in this order; None leaves out."""

    speed: float | None = None
    """Factor."""
    white_noise_snr_db: float | None = None
    white_noise: np.random.Generator | None = None
    band_hz: tuple[float, float] | None = None
    """Bass cut and treble cut."""
    gain_db: float | None = None


def utterance_generator(change: Change, *, seed: int, epoch: int, utterance_id: str) -> np.random.Generator:
    """Give the randomness of one change of one utterance in one epoch, wherever and whenever it is asked for."""
    key = f"{change}/{seed}/{epoch}/{utterance_id}".encode("utf-8", "surrogatepass")  # ids may be odd file names
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()))


class Augmenter:
    """Carry out the changes a config asks for; no state changes, so threads may share it and it may be pickled."""

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config

    def augment(
        self, waveform: Waveform, *, seed: int, epoch: int, utterance_id: str, max_num_samples: int
    ) -> Waveform:
        """Change one utterance, the same way for the same seed, epoch and id.

        Args:
            waveform: (S,) float32.
            seed: of the run.
            epoch: how often the utterance was read before.
            utterance_id: whose speech this is.
            max_num_samples: the model's longest context: speech is not slowed beyond it, and longer speech is cut.

        Returns:
            (S,) float32 in [-1, 1]; S changes with the speed alone.
        """
        changes = self.draw(seed=seed, epoch=epoch, utterance_id=utterance_id)
        return self.apply(waveform, changes, max_num_samples=max_num_samples)

    def draw(self, *, seed: int, epoch: int, utterance_id: str) -> Changes:
        """Decide what happens to one utterance in one epoch."""
        config = self._config

        def draw(change: Change, probability: float, low: float, high: float) -> float | None:
            generator = utterance_generator(change, seed=seed, epoch=epoch, utterance_id=utterance_id)
            return float(generator.uniform(low, high)) if generator.random() < probability else None

        return Changes(
            speed=draw("speed", config.speed_probability, config.min_speed, config.max_speed),
            white_noise_snr_db=draw("noise", config.noise_probability, config.min_snr_db, config.max_snr_db),
            white_noise=utterance_generator("white_noise", seed=seed, epoch=epoch, utterance_id=utterance_id),
            gain_db=draw("gain", config.gain_probability, config.min_gain_db, config.max_gain_db),
        )

    def apply(self, waveform: Waveform, changes: Changes, *, max_num_samples: int) -> Waveform:
        """Carry out what was drawn; (S,) to (S,)."""
        if not len(waveform):
            return waveform
        if changes.speed is not None:
            waveform = change_speed(waveform, changes.speed, max_num_samples=max_num_samples)
        if changes.white_noise_snr_db is not None and changes.white_noise is not None:
            noise = changes.white_noise.standard_normal(len(waveform), np.float32)
            waveform = add_noise(waveform, noise, snr_db=changes.white_noise_snr_db)
        if changes.gain_db is not None:
            waveform = waveform * np.float32(10.0 ** (changes.gain_db / 20.0))
        return np.clip(waveform[:max_num_samples], -1.0, 1.0)


def change_speed(waveform: Waveform, speed: float, *, max_num_samples: int) -> Waveform:
    """Play faster (``speed`` above 1) or slower, pitch included, but not beyond ``max_num_samples``."""
    speed = max(speed, len(waveform) / max_num_samples)
    resampled: Waveform = soxr.resample(waveform, SAMPLING_RATE * speed, SAMPLING_RATE, quality="MQ")
    return resampled[:max_num_samples]


def add_noise(waveform: Waveform, noise: Waveform, *, snr_db: float) -> Waveform:
    """Mix (S,) noise into (S,) speech at a ratio of their mean powers; silent speech or noise adds nothing."""
    speech_power, noise_power = (float(np.mean(np.square(one, dtype=np.float64))) for one in (waveform, noise))
    if not noise_power:
        return waveform
    scale = np.sqrt(speech_power / noise_power * 10.0 ** (-snr_db / 10.0))
    return waveform + noise * np.float32(scale)


def augment_generator(*, seed: int, epoch: int, utterance_id: str) -> np.random.Generator:
    """Give the randomness of one utterance in one epoch; goes when training reads ``Augmenter``."""
    return np.random.default_rng([seed, epoch, zlib.crc32(utterance_id.encode())])


def augment_waveform(
    waveform: Waveform, config: AugmentConfig, generator: np.random.Generator, *, max_num_samples: int
) -> Waveform:
    """Change speed, level and noise; goes when training reads ``Augmenter``."""
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
    """Blank stretches of time and bands of mel bins; goes when training reads ``spec_augment``."""
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
