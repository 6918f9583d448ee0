"""Whisper in PyTorch whose encoder reads trimmed contexts.

The encoder's positions are fixed sinusoids, so a trimmed context takes the first rows of their table.

Shapes: B batch, M mel bins, F frames (100 per second), P positions (50 per second), D model width.
"""

from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.modeling_outputs import BaseModelOutput

from sottovoce.model import onednn_linear
from sottovoce.model.audio_context import AudioContext
from sottovoce.whisper_classes import WhisperForConditionalGeneration, modeling_whisper


class TrimmedEncoder(modeling_whisper.WhisperEncoder):
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
    """Write the context into a model's config; every later stage reads it there."""
    config.update(context.config_values)
