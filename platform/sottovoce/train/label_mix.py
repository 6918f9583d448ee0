"""Which labels carry timestamps or a previous text: drawn for each example and epoch, the same on whatever rank."""

import zlib
from dataclasses import dataclass

import numpy as np

_STREAM = 0x6C_61_62_65_6C  # "label": keeps these draws apart from the augmentation's, which have the same seed


@dataclass(frozen=True)
class LabelChoice:
    """How one example is labelled in one epoch."""

    timestamps: bool
    previous_text: bool


@dataclass(frozen=True)
class LabelMix:
    """How often labels carry what keeps a fine-tuned Whisper able to write times and to continue a text."""

    timestamp_probability: float
    previous_text_probability: float

    def choose(self, example_id: str, *, seed: int, epoch: int) -> LabelChoice:
        """Draw for one example."""
        generator = np.random.default_rng([seed, epoch, zlib.crc32(example_id.encode()), _STREAM])
        timed, prompted = generator.random(2)
        return LabelChoice(
            timestamps=bool(timed < self.timestamp_probability),
            previous_text=bool(prompted < self.previous_text_probability),
        )
