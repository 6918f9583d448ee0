"""Times that a Whisper writes among its words: the rules while it writes.

Shapes: B batch, T tokens, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray


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
