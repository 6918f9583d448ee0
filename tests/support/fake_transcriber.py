"""Transcribers that are no replicas, and recordings made of noise."""

import asyncio
import io
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import soundfile

from serve.served_model import ServedModel
from sottovoce.schema import DecodeOptions, Pcm, WindowResult


def speech(duration_s: float, sampling_rate: int = 16_000, num_channels: int = 1) -> np.ndarray:
    """Noise in bursts of 0.8 s with pauses of 0.2 s: (S, C) float32."""
    num_samples = int(duration_s * sampling_rate)
    noise = np.random.default_rng(0).normal(scale=0.1, size=(num_samples, num_channels)).astype(np.float32)
    noise[np.arange(num_samples) % sampling_rate >= 0.8 * sampling_rate] = 0.0
    return noise


def wav(samples: np.ndarray, sampling_rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


class FakePending:
    """What DeploymentResponse is to the gateway."""

    def __init__(self, answer: Callable[[], Any], delay_s: float) -> None:
        self._answer, self._delay_s = answer, delay_s
        self.is_cancelled = False

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(self._delay_s).__await__()
        return self._answer()

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeTranscriber:
    """A handle whose windows read as their length in milliseconds; ``failures`` are raised first, one a call."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.delay_s = 0.0
        self.pending: list[FakePending] = []
        self.decode_options: list[DecodeOptions] = []
        self.model_keys: list[str] = []
        self.windows: list[Pcm] = []

    def options(self, *, multiplexed_model_id: str) -> "FakeTranscriber":
        self.model_keys.append(multiplexed_model_id)
        return self

    @property
    def transcribe(self) -> "FakeMethod":
        return FakeMethod(self._transcribe)

    @property
    def describe(self) -> "FakeMethod":
        names = {"en": "english", "de": "german"}
        return FakeMethod(lambda: FakePending(lambda: ServedModel("fake", 2.0, 10.0, names), 0.0))

    def _transcribe(self, pcm: Pcm, options: DecodeOptions) -> FakePending:
        assert pcm.dtype == np.int16
        self.windows.append(pcm)
        self.decode_options.append(options)

        def answer() -> WindowResult:
            if self.failures:
                raise self.failures.pop(0)
            text = f"{len(pcm) // 16} ms"
            return WindowResult(
                text=text, token_ids=(1, 2), language=options.language or "de", avg_logprob=-0.5, no_speech_prob=0.1
            )

        self.pending.append(FakePending(answer, self.delay_s))
        return self.pending[-1]


class FakeMethod:
    def __init__(self, call: Callable[..., FakePending]) -> None:
        self.remote = call
