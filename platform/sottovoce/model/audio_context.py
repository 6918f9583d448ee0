"""The audio context: how many seconds of sound a model reads at once.

Whisper pads every utterance to 30 s. A model trained on trimmed contexts pays for the seconds of an utterance only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.audio.features import Padding
from sottovoce.errors import ContextError
from sottovoce.schema import FRAMES_PER_SECOND, MAX_CONTEXT_S

_RANGE_KEY = "audio_context_s"  # in config.json: [shortest, longest] or [shortest, longest, margin], in seconds
_PADDING_KEY = "audio_padding"
_STEP_S = 0.5  # contexts are multiples of it, so that a batch of similar utterances shares one


@dataclass(frozen=True)
class AudioContext:
    """The range of contexts a checkpoint was trained on; stock Whisper reads 30 s and nothing else."""

    min_s: float = MAX_CONTEXT_S
    max_s: float = MAX_CONTEXT_S
    margin_s: float = 0.0
    """Silence that a context holds at least after the speech, unless the longest context leaves less."""
    padding: Padding = "frames"
    """What follows shorter speech. Models that releases before 0.2 trained on trimmed contexts know padded sound only,
    and so does ``micro``."""

    @property
    def config_values(self) -> dict[str, object]:
        """The values for ``config.json``."""
        bounds = [self.min_s, self.max_s, *([self.margin_s] if self.margin_s else [])]
        return {_RANGE_KEY: bounds, _PADDING_KEY: self.padding}

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "AudioContext":
        """Read the context from the values of a model's config; 30 s if they have none."""
        bounds = config.get(_RANGE_KEY)
        if bounds is None:
            return cls()
        shortest, longest, *margin = map(float, bounds)
        return cls(shortest, longest, sum(margin), padding=config.get(_PADDING_KEY, "sound"))

    @classmethod
    def of(cls, config: object) -> "AudioContext":
        """Read the context from a WhisperConfig; see ``read``."""
        return cls.read(vars(config))

    @property
    def is_trimmed(self) -> bool:
        """Whether shorter windows have shorter contexts."""
        return self.min_s < self.max_s

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
