"""From a recording's bytes to a timed transcript: decode, cut, transcribe, join."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serve.served_model import ServedModel
from serve.windows import TranscriberHandle, send_windows
from sottovoce.audio.decode import decode_audio
from sottovoce.audio.pcm import to_pcm
from sottovoce.audio.silence import cut_at_silences
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Pcm, WindowResult

_SOURCE = "the uploaded file"  # never the client's own name for it, which would end in logs


@dataclass(frozen=True)
class TimedWindow:
    """One window's place in the recording, and what was heard in it."""

    start_s: float
    end_s: float
    result: WindowResult


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording."""

    duration_s: float
    language: str
    """ISO 639-1: the one asked for, or the one heard for most of the time."""
    windows: tuple[TimedWindow, ...]

    @property
    def text(self) -> str:
        """All windows' text, with a space between windows."""
        return " ".join(window.result.text for window in self.windows if window.result.text)


@dataclass(frozen=True)
class _CutRecording:
    num_samples: int
    spans: tuple[tuple[int, int], ...]
    windows: tuple[Pcm, ...]


async def transcribe_recording(
    data: bytes,
    *,
    handle: TranscriberHandle,
    served: ServedModel,
    language: str | None,
    max_duration_s: float,
    max_windows_in_flight: int,
    decoders: ThreadPoolExecutor,
) -> Transcript:
    """Transcribe one recording of any length up to the limit.

    Args:
        data: bytes of any container that can be decoded.
        handle: the transcriber deployment.
        served: the model that decodes it.
        language: ISO 639-1 code, or None to detect it.
        max_duration_s: the limit on decoded audio.
        max_windows_in_flight: windows that wait or run at a time.
        decoders: threads for decoding, which would hold the event loop for as long as it takes.

    Raises:
        AudioError: audio that cannot be used.
        OverloadedError, TranscriberLostError: see ``send_windows``.
    """
    loop = asyncio.get_running_loop()
    recording = await loop.run_in_executor(decoders, _decode_and_cut, data, served.max_window_s, max_duration_s)
    options = DecodeOptions(language=language)
    results = await send_windows(handle, recording.windows, options, model=served, max_in_flight=max_windows_in_flight)
    windows = tuple(
        TimedWindow(start / SAMPLING_RATE, end / SAMPLING_RATE, result)
        for (start, end), result in zip(recording.spans, results, strict=True)
    )
    spoken = language or _most_spoken(windows)
    return Transcript(duration_s=recording.num_samples / SAMPLING_RATE, language=spoken, windows=windows)


def _decode_and_cut(data: bytes, max_window_s: float, max_duration_s: float) -> _CutRecording:
    waveform = decode_audio(data, source=_SOURCE, max_duration_s=max_duration_s)
    spans = tuple(cut_at_silences(waveform, max_window_s=max_window_s))
    return _CutRecording(len(waveform), spans, tuple(to_pcm(waveform[start:end]) for start, end in spans))


def _most_spoken(windows: Sequence[TimedWindow]) -> str:
    """Give the language with the most seconds; English for pure silence, where any answer is a guess."""
    seconds: Counter[str] = Counter()
    for window in windows:
        seconds[window.result.language] += round((window.end_s - window.start_s) * SAMPLING_RATE)
    return max(seconds, key=lambda language: seconds[language], default="en")
