"""What decoding asks of an engine: the language of each window, and its text at one temperature.

Shapes: B windows, R rows, T tokens.
"""

from collections.abc import Iterator, Sequence
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

    @property
    def num_generated(self) -> int:
        """Tokens generated so far for each window that goes on, over all attempts."""

    def detect_languages(self) -> list[SpokenLanguage]:
        """Detect the likeliest language of each of the B windows."""

    def attempt(
        self,
        rows: Sequence[int],
        prefix: TokenIds,
        options: Sequence[DecodeOptions],
        number: int,
        *,
        cuts_loops: bool = True,
    ) -> Iterator[dict[int, Attempt]]:
        """Decode R windows step by step, each at its temperature ``number``.

        One attempt of a decoder runs at a time.

        Args:
            rows: the windows, all searched by beams or all sampled, with equally many texts.
            prefix: (R, T) tokens before the transcript.
            options: R, equal in ``timestamps``.
            number: index of the temperature in ``temperatures``.
            cuts_loops: whether a text that repeats itself may end early, if another temperature follows.

        Yields:
            After each step, the attempts that ended with it, by their index among ``rows``.
        """


def is_search(options: DecodeOptions, number: int) -> bool:
    """Whether a window is searched by beams at its temperature ``number``."""
    return options.temperatures[number] == 0.0 and options.beam_size > 1


def num_texts(options: DecodeOptions, number: int) -> int:
    """Return how many texts of a window are generated side by side at its temperature ``number``."""
    if is_search(options, number):
        return options.beam_size
    return max(1, options.best_of) if options.temperatures[number] > 0.0 else 1
