"""Assistants of every quality, and whether a text is the model's own beside them."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import DecodeOptions, WindowResult

LOGPROB_TOLERANCE = 1e-4  # float32: several tokens read at once round differently


def shaken(checkpoint: Checkpoint, scale: float) -> Checkpoint:
    """Return a copy whose decoder's weights are off by noise, in multiples of their deviation."""
    model = copy.deepcopy(checkpoint.model)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in model.model.decoder.layers.parameters():
            weight.add_(torch.randn_like(weight) * scale * weight.std(correction=0))
    return replace(checkpoint, model=model, source="shaken")


def halved(checkpoint: Checkpoint) -> Checkpoint:
    """Leave out the upper half of the decoder's layers."""
    model = copy.deepcopy(checkpoint.model)
    model.model.decoder.layers = model.model.decoder.layers[: len(model.model.decoder.layers) // 2]
    return replace(checkpoint, model=model, source="halved")


def assert_same(results: list[WindowResult], expected: list[WindowResult]) -> None:
    assert [result.token_ids for result in results] == [result.token_ids for result in expected]
    assert [result.language for result in results] == [result.language for result in expected]
    assert [result.temperature for result in results] == [result.temperature for result in expected]
    for result, other in zip(results, expected, strict=True):
        assert result.avg_logprob == pytest.approx(other.avg_logprob, abs=LOGPROB_TOLERANCE)


@dataclass(frozen=True)
class SpokenWindows:
    """Sentences that micro can hear, half of them with times and a third with a prompt."""

    windows: list[np.ndarray]
    options: list[DecodeOptions]
    expected: list[WindowResult]
    """What micro alone writes for them."""

    def assert_same_with(self, model: Checkpoint, assistant: Checkpoint, *, max_batch_size: int) -> None:
        recognizer = TorchRecognizer(model, assistant=assistant, max_batch_size=max_batch_size)
        assert_same(recognizer.recognize(self.windows, self.options), self.expected)


def speak_windows(model: Checkpoint, count: int) -> SpokenWindows:
    windows = [speech.waveform for speech in speak_timed(count, voices=UNSEEN_VOICES, max_s=9.5, seed=11)]
    options = [
        DecodeOptions(timestamps=i % 2 == 0, prompt="The doctor said so." if i % 3 == 0 else "", max_new_tokens=64)
        for i in range(count)
    ]
    return SpokenWindows(windows, options, TorchRecognizer(model).recognize(windows, options))
