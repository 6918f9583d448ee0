"""What training minimizes, over which weights and for how many steps at which learning rate.

Shapes: B batch, M mel bins, F frames, T tokens, N labels that count, V vocabulary, P positions,
D model width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sottovoce.audio.features import Padding
from sottovoce.model.context import TrimmedWhisper
from sottovoce.train.batches import find_label_indices
from sottovoce.train.methods import METHODS, MethodName
from sottovoce.whisper_classes import modeling_whisper

# of Whisper's log-mel spectrograms, (log10(power) + 4) / 4: 8 orders of magnitude; the least power is 1e-10
_DYNAMIC_RANGE, _SILENCE = 2.0, -1.5
_LAYERS_WITH_DROPOUT = (
    modeling_whisper.WhisperEncoder,
    modeling_whisper.WhisperDecoder,
    modeling_whisper.WhisperEncoderLayer,
    modeling_whisper.WhisperDecoderLayer,
)


def learning_rate_scale(step: int, *, warmup_steps: int, num_steps: int) -> float:
    """Compute the fraction of the peak learning rate that a step uses.

    Args:
        step: from 0 on.
        warmup_steps: steps of the linear rise; the last of them uses the peak rate.
        num_steps: steps of the run; the rate falls linearly and would be zero at one step more.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup_steps))


def count_steps(*, steps_per_epoch: int, num_epochs: int, max_steps: int | None) -> int:
    """Count the steps of a run."""
    num_steps = steps_per_epoch * num_epochs
    return num_steps if max_steps is None else min(num_steps, max_steps)


def is_due(step: int, *, every: int | None, num_steps: int) -> bool:
    """Whether something that happens every so many steps, and after the last, happens after this step."""
    return step == num_steps or (every is not None and step % every == 0)


class LossSum(NamedTuple):
    """A loss that can be summed over batches and ranks."""

    total: Tensor
    """Scalar, float32: summed over the labels that count."""
    num_labels: Tensor
    """Scalar, float32."""


class WhisperObjective(nn.Module):
    """Cross entropy of a Whisper's next tokens. Logits are computed only where a label counts."""

    def __init__(
        self, whisper: TrimmedWhisper, *, label_smoothing: float = 0.0, padded_probability: float = 0.0
    ) -> None:
        """Wrap a model.

        Args:
            whisper: the model.
            label_smoothing: of the cross entropy in training.
            padded_probability: fraction of the training batches that are padded to the model's longest input.
        """
        super().__init__()
        self.whisper = whisper
        self._label_smoothing = label_smoothing
        self._padded_probability = padded_probability
        self._longest_input = 2 * int(whisper.config.max_source_positions)  # frames that the encoder has positions for
        self._padding = whisper.audio_context.padding

    def forward(
        self, input_features: Tensor, decoder_input_ids: Tensor, labels: Tensor, label_indices: Tensor | None = None
    ) -> LossSum:
        """Compute the loss.

        Args:
            input_features: (B, M, F).
            decoder_input_ids: (B, T), the start token first.
            labels: (B, T), each the token after its input; IGNORED if it does not count.
            label_indices: (N,) from ``find_label_indices``; if None, they are found here, which waits for the GPU.
        """
        if self._is_padded():
            input_features = pad_frames(input_features, self._longest_input, padding=self._padding)
        encoded = self.whisper.model.encoder(input_features).last_hidden_state
        return self.score_encoded(
            encoded, decoder_input_ids, labels, find_label_indices(labels) if label_indices is None else label_indices
        )

    def _is_padded(self) -> bool:
        """Whether this training batch is padded; chosen by torch's random numbers, which follow from the batch."""
        probability = self._padded_probability if self.training else 0.0
        return bool(probability) and float(torch.rand(())) < probability

    def score_encoded(
        self, encoded: Tensor, decoder_input_ids: Tensor, labels: Tensor, label_indices: Tensor
    ) -> LossSum:
        """Compute the loss from the encoder's output (B, P, D); see ``forward``."""
        smoothing = self._label_smoothing if self.training else 0.0
        wanted = labels.flatten().index_select(0, label_indices)
        logits = self.compute_logits(encoded, decoder_input_ids, label_indices)
        total = nn.functional.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="sum")
        return LossSum(total, torch.full((), float(len(wanted)), device=total.device))

    def compute_logits(self, encoded: Tensor, decoder_input_ids: Tensor, label_indices: Tensor) -> Tensor:
        """Compute the logits (N, V), float32, at the labels that count, row by row; see ``forward``."""
        output = self.whisper.model.decoder(input_ids=decoder_input_ids, encoder_hidden_states=encoded, use_cache=False)
        logits: Tensor = self.whisper.proj_out(
            output.last_hidden_state.flatten(0, 1).index_select(0, label_indices)
        ).float()
        return logits


def pad_frames(input_features: Tensor, num_frames: int, *, padding: Padding) -> Tensor:
    """Pad log-mel spectrograms to a longer context.

    Args:
        input_features: (B, M, F).
        num_frames: frames of the result, at least F.
        padding: how they are padded already.

    Returns:
        (B, M, ``num_frames``). The silence after padded sound is each spectrogram's own floor: 80 dB below its loudest
        value, which is 2 in Whisper's scale. So it is exact where the loudest frame is not masked.
    """
    if padding == "frames":
        return nn.functional.pad(input_features, (0, num_frames - input_features.shape[2]))
    missing = num_frames - input_features.shape[2]
    floor = (input_features.amax(dim=(1, 2), keepdim=True) - _DYNAMIC_RANGE).clamp(min=_SILENCE)
    return torch.cat([input_features, floor.expand(-1, input_features.shape[1], missing)], dim=2)


def prepare_whisper(
    whisper: TrimmedWhisper, *, method: MethodName, dropout: float, gradient_checkpointing: bool
) -> None:
    """Set a model up for training, in place.

    Args:
        whisper: with its adapter, if one is trained.
        method: chooses the weights that get gradients.
        dropout: of the layers; an adapter has its own.
        gradient_checkpointing: recompute each layer's activations in the backward pass instead of keeping them.
    """
    METHODS[method].choose_weights(whisper)
    for module in whisper.modules():
        if isinstance(module, _LAYERS_WITH_DROPOUT):
            module.dropout = dropout
    if gradient_checkpointing:
        # not re-entrant: that kind yields no gradients if the first layer's input has none, as beside an adapter
        whisper.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    whisper.train()


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Divide the trained weights into those that decay (matrices) and those that do not (biases, norms)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
