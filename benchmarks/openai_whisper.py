"""A checkpoint of ours in openai-whisper's own model: what decoding and word times are compared with."""

import re
from typing import Any

import torch

from sottovoce.model.checkpoint import Checkpoint
from sottovoce.schema import MAX_LABEL_TOKENS

_RENAMED = (
    (r"\.layers\.", ".blocks."),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"encoder_attn", "cross_attn"),
    (r"self_attn", "attn"),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"final_layer_norm", "mlp_ln"),
    (r"embed_tokens", "token_embedding"),
    (r"embed_positions\.weight", "positional_embedding"),
    (r"^encoder\.layer_norm", "encoder.ln_post"),
    (r"^decoder\.layer_norm", "decoder.ln"),
)
"""Names of Hugging Face's weights, and what they are called there; in this order."""


def as_openai_whisper(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 - openai-whisper has no types
    """Return the same weights to openai-whisper's own model, with all heads for alignment."""
    from whisper.model import ModelDimensions, Whisper  # here: an optional package, in the extras dev and benchmarks

    config = checkpoint.model.config
    model = Whisper(
        ModelDimensions(
            n_mels=config.num_mel_bins,
            n_audio_ctx=config.max_source_positions,
            n_audio_state=config.d_model,
            n_audio_head=config.encoder_attention_heads,
            n_audio_layer=config.encoder_layers,
            n_vocab=config.vocab_size,
            n_text_ctx=MAX_LABEL_TOKENS,
            n_text_state=config.d_model,
            n_text_head=config.decoder_attention_heads,
            n_text_layer=config.decoder_layers,
        )
    )
    renamed: dict[str, torch.Tensor] = {}
    for name, value in checkpoint.model.model.state_dict().items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = _widened(name, value, width=4 * config.d_model)
    model.load_state_dict(renamed)
    heads = torch.ones(config.decoder_layers, config.decoder_attention_heads, dtype=torch.bool)
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model.eval()


def _widened(name: str, value: torch.Tensor, *, width: int) -> torch.Tensor:
    """Widen narrow feed-forward layers, by units that do nothing, to the width that openai-whisper's model has."""
    if ".mlp.0." in name:
        return torch.cat([value, value.new_zeros(width - len(value), *value.shape[1:])])
    if name.endswith(".mlp.2.weight"):
        return torch.cat([value, value.new_zeros(len(value), width - value.shape[1])], dim=1)
    return value
