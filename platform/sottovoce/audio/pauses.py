"""Where nobody speaks between words: pauses relative to how loud the speech itself is.

Shapes: S samples, F frames of 10 ms.
"""

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLING_RATE, Waveform

# How far up from the quietest to the loudest frames sound begins, in dB. 0.3 to 0.45 gave word times within 2 ms of
# each other on synthetic sentences and joined recordings of digits (2026-11); in the middle.
_THRESHOLD = 0.4
_QUIET_PERCENT, _LOUD_PERCENT = 10, 95
_LARGEST_RANGE_DB = 60.0  # digital silence counts as this far below speech
_SHORTEST_S = 0.06  # shorter stretches are closures of plosives
_SOUND_RATIO = 0.05  # of the loudest frame's level: about where one hears a recorded word begin


def find_pauses(waveform: Waveform) -> list[tuple[float, float]]:
    """Find the stretches in which nobody speaks.

    Args:
        waveform: (S,) float32, 16 000 Hz.

    Returns:
        Start and end [s] of each, in order, to 10 ms; none where loud and quiet frames are alike.
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
    """Find where the sound of one recording begins and ends [s], to 10 ms; the whole of it where it is silent."""
    levels = _frame_levels(waveform)
    loud = np.flatnonzero(levels > _SOUND_RATIO * levels.max(initial=0.0))
    if not loud.size:
        return 0.0, len(waveform) / SAMPLING_RATE
    return float(loud[0]) / FRAMES_PER_SECOND, float(loud[-1] + 1) / FRAMES_PER_SECOND


def _frame_levels(waveform: Waveform) -> NDArray[np.float64]:
    """Measure the root mean square of each whole frame: (F,)."""
    whole = waveform[: len(waveform) // HOP_LENGTH * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    levels: NDArray[np.float64] = np.sqrt(np.square(whole, dtype=np.float64).mean(axis=1))
    return levels
