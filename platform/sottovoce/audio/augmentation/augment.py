"""Augment training speech: speed, rooms, noise, band, level and codecs.

The changes are sampled first (``Augmenter.draw``), from the seed, the epoch and the utterance's id alone, and applied
second (``Augmenter.apply``), without randomness. So they are the same in any process or thread. No global random state
is read or written: audiomentations would read it, so its filter gets fixed parameters. The samples are the same on
every machine; on a CPU with other vector instructions an FFT (rooms) or an encoder may round differently.

Shapes: S samples.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import soxr
from pydantic import Field, model_validator

from sottovoce.audio.augmentation.ambience import list_recordings, noise_at_snr, read_noise, read_room, reverberate
from sottovoce.audio.augmentation.codec import Codec, pass_through_codec, require_encoder
from sottovoce.config import Config
from sottovoce.schema import SAMPLING_RATE, Waveform

_MAX_CUT_HZ = 7_600.0  # below half the sampling rate, where a Butterworth filter is still well-behaved
_ROLLOFF_DB_PER_OCTAVE = 48  # a telephone line's edges are at least as steep; steeper ones ring audibly (guess)


class AugmentConfig(Config):
    """The changes applied to training speech, in this order; by default none."""

    speed_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the utterances played faster or slower, which changes the pitch, too."""
    min_speed: float = Field(default=0.9, ge=0.5, le=2.0)
    """Slowest, as a factor."""
    max_speed: float = Field(default=1.1, ge=0.5, le=2.0)
    """Fastest, as a factor."""
    room_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the utterances with the reverberation of a room from ``room_folder``."""
    room_folder: Path | None = None
    """Folder of impulse responses, in any audio format; every worker must see it."""
    noise_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the utterances with white noise."""
    background_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the utterances with a recording from ``noise_folder`` in the background."""
    noise_folder: Path | None = None
    """Folder of recorded noise, in any audio format; every worker must see it."""
    min_snr_db: float = Field(default=10.0, ge=-20.0, le=100.0)
    """Loudest noise of either kind, as signal-to-noise ratio over the whole utterance [dB]."""
    max_snr_db: float = Field(default=40.0, ge=-20.0, le=100.0)
    """Softest noise of either kind [dB]."""
    band_limit_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the utterances limited to a band, like that of a telephone or a throat microphone."""
    min_low_cut_hz: float = Field(default=50.0, ge=20.0, le=_MAX_CUT_HZ)
    """Lowest bass cut [Hz]."""
    max_low_cut_hz: float = Field(default=300.0, ge=20.0, le=_MAX_CUT_HZ)
    """Highest bass cut [Hz]; a telephone's."""
    min_high_cut_hz: float = Field(default=2_000.0, ge=20.0, le=_MAX_CUT_HZ)
    """Lowest treble cut [Hz]; skin passes little above it."""
    max_high_cut_hz: float = Field(default=4_000.0, ge=20.0, le=_MAX_CUT_HZ)
    """Highest treble cut [Hz]; a telephone's is at 3 400."""
    gain_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the utterances made louder or softer."""
    min_gain_db: float = Field(default=-6.0, ge=-60.0, le=60.0)
    """Softest change of level [dB]."""
    max_gain_db: float = Field(default=6.0, ge=-60.0, le=60.0)
    """Loudest change of level [dB]; samples are clipped to [-1, 1], like those of an overloaded microphone."""
    codec_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of the utterances encoded and decoded with one of ``codecs``."""
    codecs: tuple[Codec, ...] = Field(default=("mp3", "opus", "mulaw"), min_length=1)
    """The codecs, one of which is sampled for each utterance."""
    min_bit_rate_kbps: float = Field(default=16.0, gt=0.0)
    """Lowest bit rate [kbit/s] of the codecs that have several: mp3, opus, aac, amr_nb."""
    max_bit_rate_kbps: float = Field(default=64.0, gt=0.0)
    """Highest bit rate [kbit/s]; rates are clipped to those of the codec."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "AugmentConfig":
        for quantity in ("speed", "snr_db", "low_cut_hz", "high_cut_hz", "gain_db", "bit_rate_kbps"):
            low, high = getattr(self, f"min_{quantity}"), getattr(self, f"max_{quantity}")
            if low > high:
                raise ValueError(
                    f"min_{quantity} {low:g} is above max_{quantity} {high:g}; lower the first or raise the second"
                )
        if self.max_low_cut_hz >= self.min_high_cut_hz:
            raise ValueError(
                f"max_low_cut_hz {self.max_low_cut_hz:g} is not below min_high_cut_hz {self.min_high_cut_hz:g},"
                " and nothing would be left between them; lower the first or raise the second"
            )
        if self.background_probability and self.noise_folder is None:
            raise ValueError("background_probability needs noise_folder; name a folder of recorded noise")
        if self.room_probability and self.room_folder is None:
            raise ValueError("room_probability needs room_folder; name a folder of impulse responses")
        return self


@dataclass(frozen=True, kw_only=True)
class WhiteNoise:
    """Sampled parameters of white noise."""

    snr_db: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Background:
    """Sampled parameters of recorded noise."""

    snr_db: float
    choice: float
    """Position of the recording in the list, in [0, 1)."""
    offset: float
    """Start of the piece, in [0, 1) of the possible starts."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The changes of one utterance in one epoch, in this order; None for no change."""

    speed: float | None = None
    """Factor."""
    room: float | None = None
    """Position of the room in the list, in [0, 1)."""
    white_noise: WhiteNoise | None = None
    background: Background | None = None
    band_hz: tuple[float, float] | None = None
    """Bass cut and treble cut."""
    gain_db: float | None = None
    codec: tuple[Codec, float] | None = None
    """The codec and its bit rate [kbit/s]."""


Drawn = TypeVar("Drawn")
Purpose: TypeAlias = Literal[
    "speed", "room", "white_noise", "background", "band_limit", "gain", "codec", "spec_augment", "label_mix"
]


def utterance_generator(purpose: Purpose, *, seed: int, epoch: int, utterance_id: str) -> np.random.Generator:
    """Return the random generator of one utterance for one purpose in one epoch; it depends on these alone.

    Each purpose has its own generator, so that enabling one change does not affect the others. The seed is the SHA-256
    of the whole key, so no two utterances share a generator.
    """
    key = f"{purpose}/{seed}/{epoch}/{utterance_id}".encode("utf-8", "surrogatepass")  # ids may be odd file names
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()))


class Augmenter:
    """Augments speech by a config; holds only settings and file names, so threads may share it.

    Raises:
        ConfigError: a folder without recordings, or a codec that this machine cannot encode.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config
        self._rooms: tuple[str, ...] = ()
        self._noises: tuple[str, ...] = ()
        if config.room_probability and config.room_folder:
            self._rooms = list_recordings(config.room_folder, setting="room_folder")
        if config.background_probability and config.noise_folder:
            self._noises = list_recordings(config.noise_folder, setting="noise_folder")
        for codec in config.codecs if config.codec_probability else ():
            require_encoder(codec)

    def augment(
        self, waveform: Waveform, *, seed: int, epoch: int, utterance_id: str, max_num_samples: int
    ) -> Waveform:
        """Augment one utterance; the result depends on the seed, the epoch and the id alone.

        Args:
            waveform: (S,) float32.
            seed: of the run.
            epoch: how often the utterance was read before.
            utterance_id: of the utterance.
            max_num_samples: the model's longest context; speech is not slowed beyond it, and longer speech is cut.

        Returns:
            (S,) float32 in [-1, 1]; only a change of speed changes S.

        Raises:
            ConfigError: no recording of a folder can be used.
        """
        changes = self.draw(seed=seed, epoch=epoch, utterance_id=utterance_id)
        return self.apply(waveform, changes, max_num_samples=max_num_samples)

    def draw(self, *, seed: int, epoch: int, utterance_id: str) -> Changes:
        """Sample the changes of one utterance in one epoch."""
        config = self._config

        def draw(purpose: Purpose, probability: float, how: Callable[[np.random.Generator], Drawn]) -> Drawn | None:
            if not probability:
                return None  # a generator costs 25 µs
            generator = utterance_generator(purpose, seed=seed, epoch=epoch, utterance_id=utterance_id)
            return how(generator) if generator.random() < probability else None

        def snr_db(generator: np.random.Generator) -> float:
            return generator.uniform(config.min_snr_db, config.max_snr_db)

        return Changes(
            speed=draw("speed", config.speed_probability, lambda g: g.uniform(config.min_speed, config.max_speed)),
            room=draw("room", config.room_probability, lambda g: g.random()),
            white_noise=draw(
                "white_noise",
                config.noise_probability,
                lambda g: WhiteNoise(snr_db=snr_db(g), seed=int(g.integers(2**63))),
            ),
            background=draw(
                "background",
                config.background_probability,
                lambda g: Background(snr_db=snr_db(g), choice=g.random(), offset=g.random()),
            ),
            band_hz=draw(
                "band_limit",
                config.band_limit_probability,
                lambda g: (
                    g.uniform(config.min_low_cut_hz, config.max_low_cut_hz),
                    g.uniform(config.min_high_cut_hz, config.max_high_cut_hz),
                ),
            ),
            gain_db=draw("gain", config.gain_probability, lambda g: g.uniform(config.min_gain_db, config.max_gain_db)),
            codec=draw(
                "codec",
                config.codec_probability,
                lambda g: (
                    config.codecs[int(g.integers(len(config.codecs)))],
                    g.uniform(config.min_bit_rate_kbps, config.max_bit_rate_kbps),
                ),
            ),
        )

    def apply(self, waveform: Waveform, changes: Changes, *, max_num_samples: int) -> Waveform:
        """Apply sampled changes; arguments, result and errors as for ``augment``."""
        if not len(waveform):
            return waveform
        if changes.speed is not None:
            waveform = change_speed(waveform, changes.speed, max_num_samples=max_num_samples)
        waveform = self._surround(waveform[:max_num_samples], changes)
        if changes.band_hz is not None:
            waveform = limit_band(waveform, *changes.band_hz)
        if changes.gain_db is not None:
            waveform = waveform * np.float32(10.0 ** (changes.gain_db / 20.0))
        if changes.codec is not None:
            codec, bit_rate_kbps = changes.codec
            waveform = pass_through_codec(waveform, codec, bit_rate_kbps=bit_rate_kbps)
        return np.clip(waveform, -1.0, 1.0)

    def _surround(self, waveform: Waveform, changes: Changes) -> Waveform:
        """Add the room and the noise."""
        if changes.room is not None:
            waveform = reverberate(waveform, read_room(self._rooms, choice=changes.room))
        speech = waveform
        if changes.white_noise is not None:
            generator = np.random.default_rng(changes.white_noise.seed)
            noise = generator.standard_normal(len(speech), np.float32)
            waveform = waveform + noise_at_snr(noise, speech, snr_db=changes.white_noise.snr_db)
        if changes.background is not None:
            choice, offset = changes.background.choice, changes.background.offset
            noise = read_noise(self._noises, choice=choice, offset=offset, num_samples=len(speech))
            waveform = waveform + noise_at_snr(noise, speech, snr_db=changes.background.snr_db)
        return waveform


def change_speed(waveform: Waveform, speed: float, *, max_num_samples: int) -> Waveform:
    """Play faster (``speed`` above 1) or slower, pitch included; slower only as far as ``max_num_samples`` allow."""
    slowest = min(1.0, len(waveform) / max_num_samples)
    resampled: Waveform = soxr.resample(waveform, SAMPLING_RATE * max(speed, slowest), SAMPLING_RATE, quality="MQ")
    return resampled


def limit_band(waveform: Waveform, low_cut_hz: float, high_cut_hz: float) -> Waveform:
    """Apply a band-pass filter with Butterworth edges of 48 dB per octave."""
    from audiomentations import BandPassFilter  # 0.8 s and 80 MB to import

    filter_ = BandPassFilter(p=1.0)
    filter_.parameters = {
        "should_apply": True,
        "center_freq": (low_cut_hz + high_cut_hz) / 2,
        "bandwidth": high_cut_hz - low_cut_hz,
        "rolloff": _ROLLOFF_DB_PER_OCTAVE,
    }
    filter_.freeze_parameters()  # otherwise it samples its own from the global random state
    # The filter starts in the steady state of the first sample, computed with LAPACK, whose last bits depend on the
    # CPU. With a leading zero the state is zero on every machine.
    limited: Waveform = filter_(np.concatenate([np.zeros(1, np.float32), waveform]), SAMPLING_RATE)[1:]
    return limited
