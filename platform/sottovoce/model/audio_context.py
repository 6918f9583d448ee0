"""The audio context: how many seconds of sound a model reads at once.

Whisper pads every utterance to 30 s. A model trained on trimmed contexts pays for the seconds of an utterance only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sottovoce.errors import ContextError
from sottovoce.schema import FRAMES_PER_SECOND, MAX_CONTEXT_S

CONFIG_KEY = "audio_context_s"  # in config.json: [shortest, longest] or [shortest, longest, margin], in seconds
_STEP_S = 0.5  # contexts are multiples of it, so that a batch of similar utterances shares one


@dataclass(frozen=True)
class AudioContext:
    """The range of contexts a checkpoint was trained on; stock Whisper reads 30 s and nothing else."""

    min_s: float = MAX_CONTEXT_S
    max_s: float = MAX_CONTEXT_S
    margin_s: float = 0.0
    """Silence that a context holds at least after the speech, unless the longest context leaves less."""

    @property
    def bounds(self) -> list[float]:
        """The values for ``config.json``."""
        return [self.min_s, self.max_s, *([self.margin_s] if self.margin_s else [])]

    @classmethod
    def of(cls, config: Any) -> "AudioContext":  # noqa: ANN401 - WhisperConfig, which nothing here shall import
        """Read the range from a model's config; 30 s if it has none."""
        return cls.between(getattr(config, CONFIG_KEY, None))

    @classmethod
    def between(cls, bounds: Sequence[float] | None) -> "AudioContext":
        """Return the range of two seconds and a margin, as ``config.json`` holds them; 30 s without."""
        return cls() if bounds is None else cls(*map(float, bounds))

    def seconds_for(self, duration_s: float) -> float:
        """Return the context [s] for speech of this length: with margin, rounded up to half a second, within the range.

        Raises:
            ContextError: speech longer than the longest context.
        """
        if duration_s > self.max_s + 1e-6:  # durations are sums of floats
            raise ContextError(duration_s, self.max_s)
        steps = math.ceil((duration_s + self.margin_s - 1e-6) / _STEP_S)
        return min(max(steps * _STEP_S, self.min_s), self.max_s)

    def num_frames_for(self, duration_s: float) -> int:
        """Return the even number of log-mel frames for speech of this length; errors as ``seconds_for``."""
        return round(self.seconds_for(duration_s) * FRAMES_PER_SECOND)
