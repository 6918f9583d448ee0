"""Recordings to the arrays a step needs: log-mel at the batch's own context, labels, augmentation.

Shapes: B batch, S samples, M mel bins, F frames, T tokens.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperTokenizerFast

from sottovoce.audio.augment import AugmentConfig, augment_generator, augment_waveform, mask_log_mel
from sottovoce.audio.features import log_mel
from sottovoce.audio.pcm import from_pcm
from sottovoce.model.context import AudioContext
from sottovoce.model.labels import IGNORED, encode_labels
from sottovoce.schema import HOP_LENGTH, SAMPLING_RATE, LogMel, PcmBatch, Waveform


@dataclass(frozen=True)
class TrainBatch:
    """One batch, ready for the model."""

    input_features: Tensor
    """(B, M, F) float32."""
    decoder_input_ids: Tensor
    """(B, T) int64, start token first, padded with the end token."""
    labels: Tensor
    """(B, T) int64: the token after each input, IGNORED beyond the first end token."""
    audio_s: float
    """Seconds of speech, padding left out."""


@dataclass(frozen=True)
class Collator:
    """Make batches for one model."""

    tokenizer: WhisperTokenizerFast
    context: AudioContext
    num_mel_bins: int

    def training_batch(self, batch: PcmBatch, augment: AugmentConfig, *, seed: int, executor: Executor) -> TrainBatch:
        """Turn what the stream gives into a batch, augmented; a recording without samples counts for nothing.

        Args:
            batch: from the stream.
            augment: changes to the speech.
            seed: of the changes, together with epoch and utterance.
            executor: threads that make log-mel.
        """
        limit = round(self.context.max_s * SAMPLING_RATE)
        generators = [
            augment_generator(seed=seed, epoch=batch.epoch, utterance_id=example.id) for example in batch.examples
        ]
        waveforms = [
            augment_waveform(from_pcm(np.concatenate(parts)), augment, generator, max_num_samples=limit)
            for parts, generator in zip(batch.recordings, generators, strict=True)
        ]
        num_frames = self._num_frames(waveforms)

        def picture(waveform: Waveform, generator: np.random.Generator) -> LogMel:
            features = log_mel(waveform, num_mel_bins=self.num_mel_bins, num_frames=num_frames)
            return mask_log_mel(features, augment, generator, num_frames=len(waveform) // HOP_LENGTH)

        pictures = list(executor.map(picture, waveforms, generators))
        labels = [
            encode_labels(self.tokenizer, example.utterances[0].text, language=example.utterances[0].language)
            if len(parts[0])
            else []
            for example, parts in zip(batch.examples, batch.recordings, strict=True)
        ]
        return self._pack(pictures, labels, waveforms)

    def validation_batch(self, waveforms: Sequence[Waveform], labels: Sequence[list[int]]) -> TrainBatch:
        """Turn waveforms (S,) and their labels into a batch, unchanged."""
        num_frames = self._num_frames(waveforms)
        pictures = [log_mel(one, num_mel_bins=self.num_mel_bins, num_frames=num_frames) for one in waveforms]
        return self._pack(pictures, labels, waveforms)

    def _num_frames(self, waveforms: Sequence[Waveform]) -> int:
        return self.context.num_frames_for(max(len(waveform) for waveform in waveforms) / SAMPLING_RATE)

    def _pack(
        self, pictures: Sequence[LogMel], labels: Sequence[Sequence[int]], waveforms: Sequence[Waveform]
    ) -> TrainBatch:
        decoder_input_ids, targets = shift_labels(labels, padding_id=int(self.tokenizer.eos_token_id))
        return TrainBatch(
            input_features=torch.from_numpy(np.stack(pictures)),
            decoder_input_ids=decoder_input_ids,
            labels=targets,
            audio_s=sum(len(waveform) for waveform in waveforms) / SAMPLING_RATE,
        )


def shift_labels(labels: Sequence[Sequence[int]], *, padding_id: int) -> tuple[Tensor, Tensor]:
    """Divide labels that begin with the start token into what the decoder reads and what it should write.

    Args:
        labels: B lists from ``encode_labels``; an empty list counts for nothing.
        padding_id: fills the inputs; it is the end token, so the targets are masked by length, not by value.

    Returns:
        Inputs (B, T) with the start token once and first, targets (B, T) with the end token once and then IGNORED.
    """
    num_tokens = max(2, *(len(ids) for ids in labels), 2) - 1
    inputs = torch.full((len(labels), num_tokens), padding_id)
    targets = torch.full((len(labels), num_tokens), IGNORED)
    for row, ids in enumerate(labels):
        if ids:
            inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[row, : len(ids) - 1] = torch.tensor(ids[1:])
    return inputs, targets
