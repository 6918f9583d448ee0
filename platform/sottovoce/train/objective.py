"""What training minimizes, and over which weights.

Shapes: B batch, M mel bins, F frames, T tokens, N labels that count, V vocabulary, P positions,
D model width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.whisper import modeling_whisper

from sottovoce.model.context import TrimmedWhisper
from sottovoce.train.batches import find_places
from sottovoce.train.config import Method


def learning_rate_scale(step: int, *, warmup_steps: int, num_steps: int) -> float:
    """Give the part of the highest learning rate that a step uses.

    Args:
        step: from 0 on.
        warmup_steps: steps of the straight rise; the last of them uses the full rate.
        num_steps: steps of the run; one after the last would use zero.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, (num_steps - step) / max(1, num_steps - warmup_steps))


def count_steps(*, steps_per_epoch: int, num_epochs: int, max_steps: int | None) -> int:
    """Give the steps of a run."""
    num_steps = steps_per_epoch * num_epochs
    return num_steps if max_steps is None else min(num_steps, max_steps)


def is_due(step: int, *, every: int | None, num_steps: int) -> bool:
    """Tell whether something that happens every so many steps, and after the last, happens after this many steps."""
    return step == num_steps or (every is not None and step % every == 0)


_LAYERS_WITH_DROPOUT = (
    modeling_whisper.WhisperEncoder,
    modeling_whisper.WhisperDecoder,
    modeling_whisper.WhisperEncoderLayer,
    modeling_whisper.WhisperDecoderLayer,
)


class LossSum(NamedTuple):
    """A loss that can be added up over batches and ranks."""

    total: Tensor
    """Scalar, float32: summed over the labels that count."""
    num_labels: Tensor
    """Scalar, float32."""


class WhisperObjective(nn.Module):
    """Cross entropy of a Whisper's next tokens; logits are made only where a label counts."""

    def __init__(self, whisper: TrimmedWhisper, *, label_smoothing: float) -> None:
        super().__init__()
        self.whisper = whisper
        self._label_smoothing = label_smoothing

    def forward(
        self, input_features: Tensor, decoder_input_ids: Tensor, labels: Tensor, places: Tensor | None = None
    ) -> LossSum:
        """Compute the loss.

        Args:
            input_features: (B, M, F).
            decoder_input_ids: (B, T), the start token first.
            labels: (B, T), each the token after its input; IGNORED where none counts.
            places: (N,) as ``find_places`` gives them; where None they are looked for here, and that waits for a GPU.
        """
        encoded = self.whisper.model.encoder(input_features).last_hidden_state
        return self.score_encoded(encoded, decoder_input_ids, labels, find_places(labels) if places is None else places)

    def score_encoded(self, encoded: Tensor, decoder_input_ids: Tensor, labels: Tensor, places: Tensor) -> LossSum:
        """Compute the loss where the encoder (B, P, D) has run already; see ``forward``."""
        smoothing = self._label_smoothing if self.training else 0.0
        wanted = labels.flatten().index_select(0, places)
        logits = self.read_labels(encoded, decoder_input_ids, places)
        total = nn.functional.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="sum")
        return LossSum(total, torch.full((), float(len(wanted)), device=total.device))

    def read_labels(self, encoded: Tensor, decoder_input_ids: Tensor, places: Tensor) -> Tensor:
        """Give the logits (N, V), float32, of the labels that count, row by row; see ``forward``."""
        output = self.whisper.model.decoder(input_ids=decoder_input_ids, encoder_hidden_states=encoded, use_cache=False)
        logits: Tensor = self.whisper.proj_out(output.last_hidden_state.flatten(0, 1).index_select(0, places)).float()
        return logits


def prepare_whisper(whisper: TrimmedWhisper, *, method: Method, dropout: float, gradient_checkpointing: bool) -> None:
    """Set a model up for training, in place.

    Args:
        whisper: with its adapter, where one is trained.
        method: which weights get gradients.
        dropout: of the layers; an adapter has its own.
        gradient_checkpointing: compute each layer's activations again in the backward pass instead of keeping them.
    """
    _choose_weights(whisper, method)
    for module in whisper.modules():
        if isinstance(module, _LAYERS_WITH_DROPOUT):
            module.dropout = dropout
    if gradient_checkpointing:
        # not re-entrant: that kind gives no gradients where the input of the first layer has none, as beside an adapter
        whisper.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    whisper.train()


def _choose_weights(whisper: TrimmedWhisper, method: Method) -> None:
    """Give gradients to what a method trains."""
    if method in ("lora", "qlora"):
        return  # the adapter has seen to it
    encoder, decoder = whisper.model.encoder, whisper.model.decoder
    whisper.requires_grad_(True)
    encoder.embed_positions.requires_grad_(False)  # fixed sinusoids
    if method == "frozen_encoder":
        encoder.requires_grad_(False)
    if method == "frozen_embeddings":
        decoder.embed_tokens.requires_grad_(False)  # and with it proj_out, whose weight it is
        decoder.embed_positions.requires_grad_(False)


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Divide the trained weights into those that decay (matrices) and those that do not (biases, norms)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
