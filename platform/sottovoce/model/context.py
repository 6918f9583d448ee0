"""The audio context: how many seconds of sound a model reads at once.

Whisper pads every utterance to 30 s. A model trained on trimmed contexts pays for the seconds of an utterance only.
The encoder's positions are fixed sinusoids, so a trimmed context takes the first rows of their table.

Shapes: B batch, M mel bins, F frames (100 per second), P positions (50 per second), D model width.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from sottovoce.errors import ContextError
from sottovoce.model import onednn_linear
from sottovoce.schema import FRAMES_PER_SECOND, MAX_CONTEXT_S

CONFIG_KEY = "audio_context_s"  # in config.json: [shortest, longest] context the weights were trained on
_STEP_S = 0.5  # contexts are multiples of it, so that a batch of similar utterances shares one


@dataclass(frozen=True)
class AudioContext:
    """The range of contexts a checkpoint was trained on; stock Whisper reads 30 s and nothing else."""

    min_s: float = MAX_CONTEXT_S
    max_s: float = MAX_CONTEXT_S

    @classmethod
    def of(cls, config: WhisperConfig) -> "AudioContext":
        """Read the range from a model's config; 30 s if it has none."""
        bounds = getattr(config, CONFIG_KEY, None)
        return cls() if bounds is None else cls(float(bounds[0]), float(bounds[1]))

    def seconds_for(self, duration_s: float) -> float:
        """Return the context [s] for speech of this length: rounded up to half a second, within the range.

        Raises:
            ContextError: speech longer than the longest context.
        """
        if duration_s > self.max_s + 1e-6:  # durations are sums of floats
            raise ContextError(duration_s, self.max_s)
        steps = math.ceil((duration_s - 1e-6) / _STEP_S)
        return min(max(steps * _STEP_S, self.min_s), self.max_s)

    def num_frames_for(self, duration_s: float) -> int:
        """Return the even number of log-mel frames for speech of this length; errors as ``seconds_for``."""
        return round(self.seconds_for(duration_s) * FRAMES_PER_SECOND)


class TrimmedEncoder(WhisperEncoder):
    """Whisper's encoder for any even number of frames up to its table of positions."""

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Tensor]:
        """Encode log-mel frames.

        Args:
            input_features: (B, M, F) log-mel.
            attention_mask: unused, as in Whisper: silence is part of the spectrogram.
            head_mask: unused.
            output_attentions: unused.
            output_hidden_states: unused.
            return_dict: False returns a tuple, which the exporter needs.

        Returns:
            ``last_hidden_state`` (B, P, D).
        """
        hidden = nn.functional.gelu(self.conv1(input_features))
        hidden = nn.functional.gelu(self.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        hidden = nn.functional.dropout(hidden, p=self.dropout, training=self.training)
        for layer in self.layers:
            hidden = layer(hidden, None, layer_head_mask=None)[0]
        hidden = self.layer_norm(hidden)
        return (hidden,) if return_dict is False else BaseModelOutput(last_hidden_state=hidden)


class TrimmedWhisper(WhisperForConditionalGeneration):
    """Whisper with the same weights, files and interface, whose encoder reads trimmed contexts."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        self.model.encoder.__class__ = TrimmedEncoder
        if onednn_linear.is_enabled():
            onednn_linear.use_onednn(self)

    @property
    def audio_context(self) -> AudioContext:
        """The range of contexts the weights were trained on."""
        return AudioContext.of(self.config)


def set_audio_context(config: WhisperConfig, context: AudioContext) -> None:
    """Write the range into a model's config; every later stage reads it there."""
    setattr(config, CONFIG_KEY, [context.min_s, context.max_s])
