"""Cross-attention of a decoder on given tokens: which positions of sound its heads attend to.

Shapes: H heads, T tokens, P positions of sound (50 per second), D model width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sottovoce.errors import CheckpointError
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.labels import TokenKinds
from sottovoce.whisper_classes import modeling_whisper

Head: TypeAlias = tuple[int, int]
"""Decoder layer and head, both counted from 0."""


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention scores and token probabilities of a decoder on one window's tokens."""

    scores: NDArray[np.float32]
    """(H, T, P) natural logarithms of the attention weights, up to a constant for each head and token."""
    probabilities: NDArray[np.float32]
    """(T - 1,) of each token given those before it, among the text tokens; 0 for other tokens."""


def alignment_heads(model: TrimmedWhisper) -> tuple[Head, ...]:
    """Return the alignment heads that the generation config names.

    Returns:
        All heads of the decoder's upper half if it names none, as in openai-whisper.

    Raises:
        CheckpointError: it names heads that the decoder does not have.
    """
    num_layers, num_heads = int(model.config.decoder_layers), int(model.config.decoder_attention_heads)
    named: list[list[int]] | None = getattr(model.generation_config, "alignment_heads", None)
    if not named:
        return tuple((layer, head) for layer in range(num_layers // 2, num_layers) for head in range(num_heads))
    heads = tuple((int(layer), int(head)) for layer, head in named)
    if not all(0 <= layer < num_layers and 0 <= head < num_heads for layer, head in heads):
        reason = (
            f"generation_config.json names alignment heads {list(heads)}, and the decoder has {num_layers} layers of "
            f"{num_heads}; find its own with python -m jobs.derive_alignment_heads"
        )
        raise CheckpointError(str(model.name_or_path), reason)
    return heads


def all_heads(model: TrimmedWhisper) -> tuple[Head, ...]:
    """Return all heads of the decoder, layer by layer."""
    num_heads = int(model.config.decoder_attention_heads)
    return tuple((layer, head) for layer in range(int(model.config.decoder_layers)) for head in range(num_heads))


def attend(
    model: TrimmedWhisper, encoded: Tensor, token_ids: Sequence[int], *, heads: Sequence[Head], kinds: TokenKinds
) -> Attention:
    """Run the decoder on tokens, and record the attention scores of heads.

    The queries and keys of the heads are computed a second time, independently of the layers' attention
    implementation. Only the scores of the requested heads are kept.

    Args:
        model: used on its device and in its precision.
        encoded: (1, P, D) from its encoder.
        token_ids: T: prefix, text and end token.
        heads: H heads of the decoder.
        kinds: which ids are text.
    """
    scores, hidden = _read(model, encoded, token_ids, heads)
    targets = torch.tensor(list(token_ids[1:]), device=encoded.device)
    with torch.no_grad():
        logits: Tensor = model.proj_out(hidden)[0, :-1].float()
        logits[:, kinds.end_id : kinds.timestamps_to] = -torch.inf  # normalized over text tokens
        chosen = logits.softmax(dim=-1).gather(1, targets[:, None])[:, 0]
    return Attention(scores=scores, probabilities=chosen.cpu().numpy())


def attention_scores(
    model: TrimmedWhisper, encoded: Tensor, token_ids: Sequence[int], *, heads: Sequence[Head]
) -> NDArray[np.float32]:
    """Return the scores of ``attend``, (H, T, P), without the probabilities, which take longest in small models."""
    return _read(model, encoded, token_ids, heads)[0]


def _read(
    model: TrimmedWhisper, encoded: Tensor, token_ids: Sequence[int], heads: Sequence[Head]
) -> tuple[NDArray[np.float32], Tensor]:
    """Run the decoder; return scores (H, T, P) and its last hidden states (1, T, D)."""
    read = torch.tensor([list(token_ids)], device=encoded.device)
    with torch.no_grad(), _recorded(model, heads) as scores:
        hidden = model.model.decoder(input_ids=read, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
    return np.stack([scores[head] for head in heads]), hidden


@contextmanager
def _recorded(model: TrimmedWhisper, heads: Sequence[Head]) -> Iterator[dict[Head, NDArray[np.float32]]]:
    """Record the heads' scores (T, P) of one window while the decoder runs in the context."""
    scores: dict[Head, NDArray[np.float32]] = {}

    def listen(layer: int, attention: modeling_whisper.WhisperAttention) -> torch.utils.hooks.RemovableHandle:
        wanted = [head for at, head in heads if at == layer]

        def note(module: modeling_whisper.WhisperAttention, _: tuple[Tensor, ...], given: dict[str, Tensor]) -> None:
            for head, values in zip(wanted, _scores(module, given, wanted), strict=True):
                scores[layer, head] = values

        return attention.register_forward_pre_hook(note, with_kwargs=True)

    handles = [listen(layer, model.model.decoder.layers[layer].encoder_attn) for layer in {layer for layer, _ in heads}]
    try:
        yield scores
    finally:
        for handle in handles:
            handle.remove()


def _scores(
    attention: modeling_whisper.WhisperAttention, given: dict[str, Tensor], heads: Sequence[int]
) -> NDArray[np.float32]:
    """Multiply the queries and keys of one layer's heads: (heads, T, P)."""

    def divided(states: Tensor) -> Tensor:
        """Split (1, N, D) by head: (heads, N, D / all heads)."""
        by_head: Tensor = states[0].unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
        return by_head[list(heads)].float()

    queries = divided(attention.q_proj(given["hidden_states"]) * attention.scaling)
    keys = divided(attention.k_proj(given["key_value_states"]))
    scores: NDArray[np.float32] = (queries @ keys.transpose(1, 2)).cpu().numpy()
    return scores
