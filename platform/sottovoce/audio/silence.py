"""Find silence by level: cut long audio at it, and find pauses between words.

Shapes: S samples, F frames of 10 ms.
"""

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLING_RATE, Waveform

SILENCE_DBFS = -60.0
"""Peak relative to full scale, in dB, below which a frame has no speech; 32 steps of 16-bit PCM."""

_MARGIN_S = 0.25  # s kept around speech: onsets and releases are quieter than the threshold (guess, untested)
_SMOOTHING_S = 0.2  # s averaged to find the quietest sample: longer than the closure of a plosive

# Threshold of sound, as a fraction of the range in dB from quiet to loud frames. 0.3 to 0.45 gave word times within
# 2 ms of each other on synthetic sentences and joined recordings of digits (2026-11); 0.4 is near the middle.
_THRESHOLD = 0.4
_QUIET_PERCENT, _LOUD_PERCENT = 10, 95
_LARGEST_RANGE_DB = 60.0  # digital silence counts as this far below speech
_SHORTEST_S = 0.06  # shorter pauses are closures of plosives
_SOUND_RATIO = 0.05  # of the loudest frame's level: about where a listener hears a recorded word begin


def peak_dbfs(waveform: Waveform) -> float:
    """Measure the loudest sample of (S,) in dB relative to full scale; -inf for none or all zero."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return float(20.0 * np.log10(peak)) if peak > 0.0 else float("-inf")


def window_spans(waveform: Waveform, *, max_window_s: float) -> list[tuple[int, int]]:
    """Return the windows of a waveform as sample spans: the whole waveform if it fits, else cut at silences."""
    if waveform.shape[0] <= max_window_s * SAMPLING_RATE:
        return [(0, waveform.shape[0])]
    return cut_at_silences(waveform, max_window_s=max_window_s)


def cut_at_silences(waveform: Waveform, *, max_window_s: float) -> list[tuple[int, int]]:
    """Cut a waveform at its quietest samples into windows that a model can read.

    Silence at the edges of a window is dropped except for a quarter of a second, so there are gaps between windows.

    Args:
        waveform: (S,) float32 in [-1, 1], mono, 16 000 Hz.
        max_window_s: the longest window.

    Returns:
        First and last-plus-one sample of each window, in order; empty for pure silence.
    """
    max_frames = max(1, int(max_window_s * FRAMES_PER_SECOND))
    frames = _frames(waveform)
    is_loud = np.abs(frames).max(axis=1, initial=0.0) >= 10.0 ** (SILENCE_DBFS / 20.0)
    energy = _smooth(_energy(frames))
    spans = []
    start = 0
    while (speech := _speech_span(is_loud, start)) is not None:
        start, end = speech
        if end - start > max_frames:
            end = _quietest(energy, start + max_frames // 2, start + max_frames)
        trimmed = _speech_span(is_loud[:end], start)
        if trimmed is not None:
            spans.append((trimmed[0] * HOP_LENGTH, min(trimmed[1] * HOP_LENGTH, len(waveform))))
        start = end
    return spans


def quietest_sample(waveform: Waveform, low: int, high: int) -> int:
    """Return the sample in (low, high] with the least energy in the 0.2 s around it; the last of equals."""
    energy = _smooth(_energy(_frames(waveform)))
    return min(_quietest(energy, low // HOP_LENGTH, high // HOP_LENGTH) * HOP_LENGTH, high)


def _frames(waveform: Waveform) -> Waveform:
    """Reshape (S,) to (F, 160), padded with silence."""
    return np.pad(waveform, (0, -len(waveform) % HOP_LENGTH)).reshape(-1, HOP_LENGTH)


def _energy(frames: Waveform) -> NDArray[np.float64]:
    """Compute the mean power of each frame."""
    power: NDArray[np.float64] = np.square(frames, dtype=np.float64).mean(axis=1)
    return power


def _speech_span(is_loud: NDArray[np.bool_], start: int) -> tuple[int, int] | None:
    """Return the span from the first to the last loud frame at or after ``start``, with margins; None without any."""
    loud = np.flatnonzero(is_loud[start:])
    if not len(loud):
        return None
    margin = int(_MARGIN_S * FRAMES_PER_SECOND)
    return max(start, start + int(loud[0]) - margin), min(len(is_loud), start + int(loud[-1]) + 1 + margin)


def _quietest(energy: NDArray[np.float64], low: int, high: int) -> int:
    """Return the frame in (low, high] with the least energy around it; the last of equals."""
    reversed_window = energy[low + 1 : high + 1][::-1]
    return high - int(np.argmin(reversed_window)) if len(reversed_window) else high


def _smooth(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average (F,) over 0.2 s around each frame."""
    width = int(_SMOOTHING_S * SAMPLING_RATE) // HOP_LENGTH
    kernel = np.full(width, 1.0 / width)
    return np.convolve(energy, kernel, mode="full")[width // 2 : width // 2 + len(energy)] if len(energy) else energy


def find_pauses(waveform: Waveform) -> list[tuple[float, float]]:
    """Find the pauses between words.

    Args:
        waveform: (S,) float32, 16 000 Hz.

    Returns:
        Start and end [s] of each, in order, to 10 ms; empty if all frames are equally loud.
    """
    levels = 10.0 * np.log10(np.square(_frame_levels(waveform)) + 1e-12)
    if not levels.size:
        return []
    loud = float(np.percentile(levels, _LOUD_PERCENT))
    quiet = max(float(np.percentile(levels, _QUIET_PERCENT)), loud - _LARGEST_RANGE_DB)
    is_quiet = levels < quiet + _THRESHOLD * (loud - quiet)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_quiet, [False]]).astype(np.int8)))
    spans = edges.reshape(-1, 2) / FRAMES_PER_SECOND
    return [(float(start), float(end)) for start, end in spans if end - start > _SHORTEST_S - 1e-6]


def sound_span(waveform: Waveform) -> tuple[float, float]:
    """Return where the sound of a recording begins and ends [s], to 10 ms; the whole recording if it is silent."""
    levels = _frame_levels(waveform)
    loud = np.flatnonzero(levels > _SOUND_RATIO * levels.max(initial=0.0))
    if not loud.size:
        return 0.0, len(waveform) / SAMPLING_RATE
    return float(loud[0]) / FRAMES_PER_SECOND, float(loud[-1] + 1) / FRAMES_PER_SECOND


def _frame_levels(waveform: Waveform) -> NDArray[np.float64]:
    """Compute the root mean square of each whole frame: (F,)."""
    whole = waveform[: len(waveform) // HOP_LENGTH * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    levels: NDArray[np.float64] = np.sqrt(np.square(whole, dtype=np.float64).mean(axis=1))
    return levels
