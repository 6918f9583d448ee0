"""A checkpoint of ours in openai-whisper's own model: what decoding, word times and texts are compared with."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.schema import MAX_LABEL_TOKENS, Waveform

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


class OpenAIWhisper:
    """A checkpoint in openai-whisper's own transcription, in float32; it pads whatever it reads to 30 s."""

    def __init__(self, checkpoint: Path, *, num_threads: int) -> None:
        """Load a checkpoint on the CPU.

        Args:
            checkpoint: its folder.
            num_threads: threads of torch, in the whole process.

        Raises:
            CheckpointError: a checkpoint that cannot be loaded.
        """
        torch.set_num_threads(num_threads)
        self._model = as_openai_whisper(load_checkpoint(checkpoint))

    def recognize(
        self, waveforms: Sequence[Waveform], *, beam_size: int, language: str = "en", long_form: bool = False
    ) -> list[str]:
        """Transcribe utterances of one language, one at a time, with Whisper's fallback to higher temperatures.

        Args:
            waveforms: each (S,) float32, 16 000 Hz.
            beam_size: texts kept while searching at temperature 0; 1 is greedy.
            language: ISO 639-1 code of the speech.
            long_form: transcribe recordings of any length with times, window after window. Otherwise utterances last
                30 s at most and are transcribed without times.

        Returns:
            One text for each waveform.
        """
        from whisper.transcribe import transcribe  # here: an optional package, in the extras dev and benchmarks

        texts: list[str] = []
        for waveform in waveforms:
            torch.manual_seed(0)  # of sampling: a text does not depend on the recordings before
            result = transcribe(
                self._model,
                waveform,
                language=language,
                beam_size=beam_size if beam_size > 1 else None,
                temperature=FALLBACK_TEMPERATURES,
                condition_on_previous_text=long_form,
                without_timestamps=not long_form,
                fp16=False,
            )
            texts.append(str(result["text"]).strip())
        return texts


def _widened(name: str, value: torch.Tensor, *, width: int) -> torch.Tensor:
    """Widen narrow feed-forward layers, by units that do nothing, to the width that openai-whisper's model has."""
    if ".mlp.0." in name:
        return torch.cat([value, value.new_zeros(width - len(value), *value.shape[1:])])
    if name.endswith(".mlp.2.weight"):
        return torch.cat([value, value.new_zeros(len(value), width - value.shape[1])], dim=1)
    return value
