"""Which labels carry timestamps or a previous text: drawn for each example and epoch, the same on whatever rank."""

from dataclasses import dataclass

from sottovoce.audio.augment import utterance_generator


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
        generator = utterance_generator("label_mix", seed=seed, epoch=epoch, utterance_id=example_id)
        timed, prompted = generator.random(2)
        return LabelChoice(
            timestamps=bool(timed < self.timestamp_probability),
            previous_text=bool(prompted < self.previous_text_probability),
        )
