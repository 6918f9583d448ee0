"""Floating-point operations of a training step, counted by torch without computing anything."""

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperConfig, WhisperForConditionalGeneration


def count_training_flops(checkpoint: Path, *, num_frames: int, num_tokens: int) -> int:
    """Count the operations of one utterance's forward and backward pass; a multiply-add counts as two.

    Args:
        checkpoint: folder with the model's config.
        num_frames: frames of the log-mel spectrogram.
        num_tokens: label tokens.
    """
    with torch.device("meta"):
        config = WhisperConfig.from_pretrained(
            checkpoint, attn_implementation="eager"
        )  # fused attention is not counted
        model = WhisperForConditionalGeneration(config).eval()  # layer dropout would draw numbers
        features = torch.empty(1, config.num_mel_bins, num_frames)
        tokens = torch.empty(1, num_tokens, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            loss = model(input_features=features, decoder_input_ids=tokens, use_cache=False).logits.float().sum()
            loss.backward()
    return int(counter.get_total_flops())
