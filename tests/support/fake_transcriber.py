"""Transcribers that are no replicas, and recordings of a synthetic voice."""

import asyncio
import io
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import soundfile
import soxr
from ray.exceptions import ActorUnavailableError

from serve.models.file_digests import FileDigest
from serve.models.model_plan import ModelEntry, ModelPlan
from serve.models.served_model import ServedModel
from sottovoce.demo.speech import Voice, speak
from sottovoce.schema import DecodeOptions, Pcm, TokenLogprob, WindowResult, WindowSegment, WordTime


def speech(duration_s: float, sampling_rate: int = 16_000, num_channels: int = 1) -> np.ndarray:
    """A synthetic voice that counts to nine again and again, with pauses: (S, C) float32."""
    voice = soxr.resample(_counting(), 16_000, sampling_rate)
    num_samples = int(duration_s * sampling_rate)
    return np.tile(voice, 1 + num_samples // len(voice))[:num_samples, None].repeat(num_channels, axis=1)


@cache
def _counting() -> np.ndarray:
    numbers = ("One, two, three.", "Four, five, six.", "Seven, eight, nine.")
    spoken = [speak(text, Voice(name="en-us")) for text in numbers]
    return np.concatenate([part for voice in spoken for part in (voice, np.zeros(6_400, np.float32))])


def wav(samples: np.ndarray, sampling_rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


class FakePending:
    """What DeploymentResponse is to the gateway."""

    def __init__(self, answer: Callable[[], Any], delay_s: float, held: asyncio.Event | None = None) -> None:
        self._answer, self._delay_s, self._held = answer, delay_s, held
        self.is_cancelled = False

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(self._delay_s).__await__()
        if self._held is not None:
            yield from self._held.wait().__await__()
        return self._answer()

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeTranscriber:
    """A handle whose windows read as their length in milliseconds; ``failures`` are raised first, one a call."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.delay_s = 0.0
        self.describe_delay_s = 0.0
        self.pending: list[FakePending] = []
        self.decode_options: list[DecodeOptions] = []
        self.model_keys: list[str] = []
        self.windows: list[Pcm] = []
        self.holds: dict[int, asyncio.Event] = {}
        """Events that windows wait for, by their place among all windows sent."""
        self.text = "{ms} ms"
        self.fail_from: int | None = None
        """Windows from this place on are lost with their replicas."""

    def options(self, *, multiplexed_model_id: str) -> "FakeTranscriber":
        self.model_keys.append(multiplexed_model_id)
        return self

    @property
    def transcribe(self) -> "FakeMethod":
        return FakeMethod(self._transcribe)

    @property
    def describe(self) -> "FakeMethod":
        names = {"en": "english", "de": "german"}
        key = self.model_keys[-1]
        files = (FileDigest("model.safetensors", 5, "ab" * 32),)
        served = ServedModel(2.0, 10.0, names, key=key, files=files)
        return FakeMethod(lambda: FakePending(lambda: served, self.describe_delay_s))

    def _transcribe(self, pcm: Pcm, options: DecodeOptions) -> FakePending:
        assert pcm.dtype == np.int16
        self.windows.append(pcm)
        self.decode_options.append(options)
        place = len(self.windows) - 1

        def answer() -> WindowResult:
            if self.failures:
                raise self.failures.pop(0)
            if self.fail_from is not None and place >= self.fail_from:
                raise ActorUnavailableError("gone", None)
            return fake_result(self.text.format(ms=len(pcm) // 16), options, duration_s=len(pcm) / 16_000)

        self.pending.append(FakePending(answer, self.delay_s, self.holds.get(place)))
        return self.pending[-1]


def fake_result(text: str, options: DecodeOptions, *, duration_s: float) -> WindowResult:
    """One segment that fills its window; German where no language is asked for; a word, a token, every quarter."""
    spoken = text.split()
    step_s = duration_s / max(1, len(spoken))
    words = tuple(
        WordTime(word, index * step_s, (index + 1) * step_s, 0.5)
        for index, word in enumerate(spoken)
        if options.word_timestamps
    )
    logprobs = tuple(TokenLogprob(f" {word}", -0.25, f" {word}".encode()) for word in spoken if options.token_logprobs)
    return WindowResult(
        text=text,
        token_ids=(1, 2),
        language=options.language or "de",
        language_probability=None if options.language else 0.75,
        avg_logprob=-0.5,
        no_speech_prob=0.125,
        compression_ratio=0.5,
        segments=(WindowSegment(0.0, duration_s, f" {text}", (1, 2), words, logprobs),) if text else (),
        words=words,
        token_logprobs=logprobs,
    )


@dataclass(frozen=True)
class FakeSource:
    """Models that need no files: a default one in two variants, and one whose name has a slash."""

    default: str = "sottovoce"
    aliases: tuple[str, ...] = ("whisper-1",)

    def read(self) -> dict[str, ModelEntry]:
        return {
            "sottovoce": fake_entry("sottovoce", ("int8", "fp32"), {"torch": "its checkpoint is gone"}),
            "org/name": fake_entry("org/name", ("torch",), {}),
        }


def fake_entry(name: str, variants: tuple[str, ...], refused: dict[str, str]) -> ModelEntry:
    plans = {
        variant: ModelPlan(key=f"{name}@{variant}/1", folder=name, variant=variant, created=1_700_000_000)
        for variant in variants
    }
    return ModelEntry(name=name, default=variants[0], plans=plans, refused=refused)


class FakeMethod:
    def __init__(self, call: Callable[..., FakePending]) -> None:
        self.remote = call
