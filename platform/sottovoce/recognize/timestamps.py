"""Times that a Whisper writes among its words: the rules while it writes, and segments from what it wrote.

Shapes: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.model.labels import TIMESTAMP_STEP_S


@dataclass(frozen=True)
class TimedText:
    """What was said between two times of a window."""

    start_s: float
    end_s: float
    text: str


def split_at_timestamps(
    token_ids: Sequence[int], *, timestamps_from: int, decode: Callable[[tuple[int, ...]], str], duration_s: float
) -> list[TimedText]:
    """Divide a window's tokens at its timestamps.

    A time between words ends what stands before it; a time after another, as in ``<|2.34|><|2.34|>``, starts what
    follows. Words without a start begin where the ones before ended, and words without an end, as where the window
    or the room for tokens was over, last until the window's end.

    Args:
        token_ids: (T,) tokens after the prefix.
        timestamps_from: the id of ``<|0.00|>``; see ``Vocabulary``.
        decode: tokens to text, such as ``Vocabulary.text``.
        duration_s: of the window; no time is beyond it.

    Returns:
        The pieces with text, in order; starts and ends never decrease. One from 0 to the end where there is no time.
    """
    pieces: list[TimedText] = []
    words: list[int] = []
    start_s = end_s = 0.0

    def close(at_s: float) -> None:
        nonlocal start_s, end_s
        end_s = max(start_s, at_s)
        text = decode(tuple(words)).strip()
        if text:
            pieces.append(TimedText(start_s, end_s, text))
        start_s = end_s
        words.clear()

    for token in token_ids:
        if token < timestamps_from:
            words.append(token)
            continue
        time_s = min(round((token - timestamps_from) * TIMESTAMP_STEP_S, 2), duration_s)
        if words:
            close(time_s)
        else:
            start_s = max(end_s, time_s)
    if words:
        close(duration_s)
    return pieces


def apply_timestamp_rules(
    logits: NDArray[np.float32], written: NDArray[np.int64], *, timestamps_from: int, end_id: int
) -> None:
    """Forbid what no well-formed transcript with times would hold next, in place.

    The first token is a time, or the end where nothing is said and the model may say so. Times come in pairs of an
    end and a start, except before the first word and the end token. They never decrease, and a segment is longer than
    nothing. A time is written where all times together are likelier than any one word.

    Args:
        logits: (B, V) of the next token, tokens that may never be written already at -inf.
        written: (B, T) tokens so far, after the prefix.
        timestamps_from: the id of ``<|0.00|>``.
        end_id: of the end token; words have lower ids.

    Source: Whisper's decoding as transformers' WhisperTimeStampLogitsProcessor does it, checked against it in
    test_timestamps; there the end token is never first.
    """
    if written.shape[1] == 0:
        logits[:, :end_id] = -np.inf
        logits[:, end_id + 1 : timestamps_from] = -np.inf
    for row, ids in zip(logits, written, strict=True):
        is_time = ids >= timestamps_from
        ends_segment = False
        if is_time[-1:].any():
            ends_segment = len(ids) > 1 and not is_time[-2]
            if ends_segment:
                row[:end_id] = -np.inf
            else:
                row[timestamps_from:] = -np.inf
        if is_time.any():
            earliest = int(ids[is_time][-1]) + (0 if ends_segment else 1)
            row[timestamps_from:earliest] = -np.inf
        _prefer_times(row, timestamps_from)


def _prefer_times(row: NDArray[np.float32], timestamps_from: int) -> None:
    """Leave only times where they are likelier together than the likeliest of the rest."""
    times = row[timestamps_from:]
    peak = times.max(initial=-np.inf)
    if not np.isfinite(peak):
        return
    together = peak + np.log(np.exp(times - peak).sum(dtype=np.float64))
    if together > row[:timestamps_from].max():
        row[:timestamps_from] = -np.inf
