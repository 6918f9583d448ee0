"""What decoding asks of an engine: the language of each window, and its text at one temperature.

Shapes: B windows, R rows, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sottovoce.recognize.decoding.session import Hypothesis, TokenIds
from sottovoce.schema import DecodeOptions


@dataclass(frozen=True)
class SpokenLanguage:
    """The language of one window."""

    code: str
    """ISO 639-1."""
    probability: float | None = None
    """Among all languages, in [0, 1]; None if it was given."""


@dataclass(frozen=True)
class Attempt:
    """The text of one window at one temperature."""

    hypothesis: Hypothesis
    no_speech_prob: float
    temperature: float


class WindowDecoder(Protocol):
    """One batch of encoded windows. An engine that computes logits has a ``StepwiseDecoder``."""

    def detect_languages(self) -> list[SpokenLanguage]:
        """Detect the likeliest language of each of the B windows."""

    def attempt(
        self, rows: Sequence[int], prefix: TokenIds, options: Sequence[DecodeOptions], number: int
    ) -> list[Attempt]:
        """Decode R windows, each at its temperature ``number``.

        Args:
            rows: the windows, all searched by beams or all sampled, with equally many texts.
            prefix: (R, T) tokens before the transcript.
            options: R, equal in ``timestamps``.
            number: index of the temperature in ``temperatures``.

        Returns:
            R attempts.
        """


def is_search(options: DecodeOptions, number: int) -> bool:
    """Whether a window is searched by beams at its temperature ``number``."""
    return options.temperatures[number] == 0.0 and options.beam_size > 1


def num_texts(options: DecodeOptions, number: int) -> int:
    """Return how many texts of a window are generated side by side at its temperature ``number``."""
    if is_search(options, number):
        return options.beam_size
    return max(1, options.best_of) if options.temperatures[number] > 0.0 else 1
