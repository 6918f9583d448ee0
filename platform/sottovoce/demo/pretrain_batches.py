"""Batches for training micro: packed synthetic speech at random audio contexts, determined by seed and step.

Shapes: B batch, M mel bins, F frames, T tokens, C letters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import WhisperTokenizerFast

from sottovoce.audio.features import log_mel
from sottovoce.demo.distort import change_speed, distort, noise
from sottovoce.demo.pool import SpeechPool
from sottovoce.model.labels import IGNORED, prefix_ids
from sottovoce.schema import FRAMES_PER_SECOND, SAMPLING_RATE, LogMel, Waveform

LETTERS = "abcdefghijklmnopqrstuvwxyz' "
"""Targets of the auxiliary alignment loss; 0 is the blank, so a letter's class is its index here plus one."""

_SHORTEST_CONTEXT_S = 2.0
# Curriculum: until this step, contexts up to this many seconds. Without it, the model learns nothing for 800 steps.
# Short contexts are used to the end; otherwise the model forgets them.
_CURRICULUM = ((500, 2.5), (1_200, 4.0), (2_000, 6.0))
_LONGEST_CONTEXT_S = 10.0
_SILENT = 0.02  # fraction of windows without speech, whose transcript is empty
_TIMESTAMPED = 0.1  # fraction of windows whose labels have timestamps
_SPEC_AUGMENT = 0.3
_TIMESTAMP_STEP_S = 0.02
_FIRST_TIMESTAMP = 50_364  # <|0.00|>


@dataclass(frozen=True)
class PretrainBatch:
    """One step's tensors."""

    input_features: Tensor
    """(B, M, F) float32."""
    decoder_input_ids: Tensor
    """(B, T) int64."""
    labels: Tensor
    """(B, T) int64, -100 for positions without loss."""
    letters: Tensor
    """(sum of C) int64, the letters of all transcripts, concatenated."""
    num_letters: Tensor
    """(B,) int64."""
    audio_s: float
    """Seconds of audio read by the encoder."""


@dataclass(frozen=True)
class _Part:
    text: str
    start_s: float
    end_s: float


class PretrainBatches(IterableDataset[PretrainBatch]):
    """An endless stream of batches, starting at a step."""

    def __init__(
        self, pool_folder: Path, tokenizer_folder: Path, *, seed: int, first_step: int, audio_s_per_step: float
    ) -> None:
        self._pool_folder = pool_folder
        self._tokenizer_folder = tokenizer_folder
        self._seed = seed
        self._first_step = first_step
        self._audio_s_per_step = audio_s_per_step

    def __iter__(self) -> Iterator[PretrainBatch]:
        torch.set_num_threads(1)  # leave the cores to the training process
        pool = SpeechPool(self._pool_folder)
        tokenizer = WhisperTokenizerFast.from_pretrained(self._tokenizer_folder)
        step = self._first_step
        while True:
            generator = np.random.default_rng((self._seed, step))
            context_s = pick_context(step, generator)
            size = max(6, round(self._audio_s_per_step / context_s))
            yield build_batch(pool, tokenizer, generator, context_s=context_s, size=size)
            step += 1


def pick_context(step: int, generator: Generator) -> float:
    """Sample a context [s] in half seconds; the longest one grows with the step."""
    longest = next((limit for until, limit in _CURRICULUM if step < until), _LONGEST_CONTEXT_S)
    return float(generator.integers(int(2 * _SHORTEST_CONTEXT_S), int(2 * longest) + 1)) / 2


def build_batch(
    pool: SpeechPool, tokenizer: WhisperTokenizerFast, generator: Generator, *, context_s: float, size: int
) -> PretrainBatch:
    """Build a batch: pack, distort and label ``size`` windows of one context."""
    num_frames = round(context_s * FRAMES_PER_SECOND)
    features, ids, texts = [], [], []
    for _ in range(size):
        waveform, parts = pack_window(pool, generator, context_s=context_s)
        spectrogram = log_mel(distort(waveform, generator), num_mel_bins=80, num_frames=num_frames)
        features.append(_mask(spectrogram, generator))
        ids.append(_label(tokenizer, parts, with_times=generator.random() < _TIMESTAMPED))
        texts.append(" ".join(part.text for part in parts))
    longest = max(map(len, ids))
    padded = np.full((size, longest), IGNORED, dtype=np.int64)
    for row, tokens in zip(padded, ids, strict=True):
        row[: len(tokens)] = tokens
    inputs = np.where(padded == IGNORED, tokenizer.eos_token_id, padded)[:, :-1]
    letters = [[LETTERS.index(letter) + 1 for letter in text.lower() if letter in LETTERS] for text in texts]
    labels = padded[:, 1:].copy()
    labels[:, :2] = IGNORED  # language and task are given, not predicted
    return PretrainBatch(
        input_features=torch.from_numpy(np.stack(features)),
        decoder_input_ids=torch.from_numpy(inputs.copy()),
        labels=torch.from_numpy(labels),
        letters=torch.tensor([letter for row in letters for letter in row], dtype=torch.int64),
        num_letters=torch.tensor([len(row) for row in letters]),
        audio_s=size * context_s,
    )


def pack_window(pool: SpeechPool, generator: Generator, *, context_s: float) -> tuple[Waveform, list[_Part]]:
    """Put one to four utterances with pauses into a window, or only noise."""
    window = np.zeros(round(context_s * SAMPLING_RATE), dtype=np.float32)
    if generator.random() < _SILENT:
        return noise(window.shape[0], generator) * np.float32(1e-3), []
    position = int(generator.uniform(0.0, 0.3) * SAMPLING_RATE)
    parts: list[_Part] = []
    while len(parts) < 4:  # four sentences fill ten seconds
        room_s = (window.shape[0] - position) / SAMPLING_RATE
        fitting = int(np.searchsorted(pool.durations_s, room_s / 1.13))  # 1.13: the slowest change of speed
        if fitting == 0 or (parts and (room_s < 1.0 or generator.random() < 0.35)):  # guesses
            break
        index = int(fitting * np.sqrt(generator.random()))  # prefers long utterances over many short ones
        speech = change_speed(pool.waveform(index), generator)
        speech = speech * np.float32(0.2 / max(float(speech.std()), 1e-3))
        window[position : position + len(speech)] += speech
        end = position + len(speech)
        parts.append(_Part(pool.texts[index], position / SAMPLING_RATE, end / SAMPLING_RATE))
        position = end + int(generator.uniform(0.1, 0.6) * SAMPLING_RATE)
    return window, parts


def _label(tokenizer: WhisperTokenizerFast, parts: list[_Part], *, with_times: bool) -> list[int]:
    ids = prefix_ids(tokenizer, language="en", task="transcribe", timestamps=with_times)
    for part in parts:
        text_ids = tokenizer(f" {part.text}", add_special_tokens=False).input_ids
        ids += [_time(part.start_s), *text_ids, _time(part.end_s)] if with_times else text_ids
    return [*ids, tokenizer.eos_token_id]


def _time(seconds: float) -> int:
    return _FIRST_TIMESTAMP + round(seconds / _TIMESTAMP_STEP_S)


def _mask(spectrogram: LogMel, generator: Generator) -> LogMel:
    """Apply light SpecAugment (Park et al. 2019) in place: set one band and one time span to the mean."""
    if generator.random() < _SPEC_AUGMENT:
        mean = spectrogram.mean()
        band, stretch = generator.integers(1, 14), generator.integers(1, 20)
        low, start = generator.integers(spectrogram.shape[0] - band), generator.integers(spectrogram.shape[1] - stretch)
        spectrogram[low : low + band] = mean
        spectrogram[:, start : start + stretch] = mean
    return spectrogram
