"""Utterances for ``served``: some whose text is plausible at once, and some that fall back to other temperatures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from sottovoce.audio.decode import read_audio
from sottovoce.data.manifest import read_manifest
from sottovoce.errors import ConfigError
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Waveform

OPTIONS = DecodeOptions(language="en", temperatures=FALLBACK_TEMPERATURES)
"""As the service decodes a request for plain text."""
_SHORTEST_S, _LONGEST_S = 2.0, 15.0
_BATCH_SIZE = 8


@dataclass(frozen=True)
class Clip:
    """One utterance."""

    waveform: Waveform
    """(S,) float32, 16 000 Hz."""
    data: bytes
    """The same as a WAV file."""
    temperature: float
    """That its text needs."""

    @property
    def falls_back(self) -> bool:
        """Whether its first text is implausible."""
        return self.temperature > 0.0


def read_clips(manifest: Path, digits: Path, recognizer: Recognizer) -> tuple[list[Clip], list[Clip]]:
    """Read English sentences and strings of digits, 2 to 15 s long, and see which of them fall back.

    Args:
        manifest: real sentences; those in English are read.
        digits: audio folder of ``jobs.make_digits``; its test split is read.
        recognizer: decides what falls back.

    Returns:
        Sentences that do not fall back; and what does, the highest temperature first.

    Raises:
        ConfigError: nothing falls back, or everything.
    """
    sentences = [
        read_audio(one.audio, start_s=one.start_s, duration_s=one.duration_s)
        for one in read_manifest(manifest)
        if one.language == "en"
    ]
    strings = [read_audio(path) for path in sorted(digits.glob("test_*.wav"))]
    waveforms = [one for one in (*sentences, *strings) if _SHORTEST_S <= len(one) / SAMPLING_RATE <= _LONGEST_S]
    clips = _recognize(recognizer, waveforms)
    healthy = [clip for clip in clips[: len(sentences)] if not clip.falls_back]
    falling = sorted((clip for clip in clips if clip.falls_back), key=lambda clip: -clip.temperature)
    if not healthy or not falling:
        raise ConfigError(f"{len(healthy)} utterances are plausible at once and {len(falling)} fall back; name others")
    return healthy, falling


def _recognize(recognizer: Recognizer, waveforms: Sequence[Waveform]) -> list[Clip]:
    clips: list[Clip] = []
    for first in range(0, len(waveforms), _BATCH_SIZE):
        batch = waveforms[first : first + _BATCH_SIZE]
        results = recognizer.recognize(batch, [OPTIONS] * len(batch))
        clips += [Clip(one, _wav(one), result.temperature) for one, result in zip(batch, results, strict=True)]
    return clips


def mix(healthy: Sequence[Clip], falling: Sequence[Clip], *, every: int, count: int) -> list[Clip]:
    """Return ``count`` clips of which every ``every``-th falls back, each list from its start and again."""
    mixed: list[Clip] = []
    for number in range(count):
        falls, index = number % every == every - 1, number // every
        mixed.append(falling[index % len(falling)] if falls else healthy[(number - index) % len(healthy)])
    return mixed


def _wav(waveform: Waveform) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1.0, 1.0), SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
