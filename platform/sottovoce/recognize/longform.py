"""Transcribe speech of any length: cut at silences, recognize the windows, join."""

from collections.abc import Sequence
from dataclasses import dataclass

from sottovoce.audio.silence import cut_at_silences
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Waveform, WindowResult


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A timed piece of a transcript."""

    start_s: float
    end_s: float
    result: WindowResult


def transcribe_waveform(
    recognizer: Recognizer, waveform: Waveform, options: DecodeOptions, *, batch_size: int = 8
) -> list[Segment]:
    """Transcribe a waveform of any length.

    Args:
        recognizer: the engine.
        waveform: (S,) float32, 16 000 Hz; one that fits the engine's context is not cut.
        options: how every window is decoded.
        batch_size: windows per call of the engine.

    Returns:
        One segment for each window, in order; none for a long waveform without speech.

    Raises:
        LanguageError: a language the model does not know.
    """
    spans = window_spans(waveform, max_window_s=recognizer.context.max_s)
    segments: list[Segment] = []
    for first in range(0, len(spans), batch_size):
        batch = spans[first : first + batch_size]
        results = recognizer.recognize([waveform[start:end] for start, end in batch], [options] * len(batch))
        segments.extend(
            Segment(start_s=start / SAMPLING_RATE, end_s=end / SAMPLING_RATE, result=result)
            for (start, end), result in zip(batch, results, strict=True)
        )
    return segments


def window_spans(waveform: Waveform, *, max_window_s: float) -> list[tuple[int, int]]:
    """Give the windows of a waveform as sample spans: itself where it fits, else cut at silences."""
    if waveform.shape[0] <= max_window_s * SAMPLING_RATE:
        return [(0, waveform.shape[0])]
    return cut_at_silences(waveform, max_window_s=max_window_s)


def join_text(segments: Sequence[Segment]) -> str:
    """Join the segments' texts with single spaces, leaving empty ones out."""
    return " ".join(text for segment in segments if (text := segment.result.text.strip()))
