"""Which tokens may come next: what Whisper's logit filters do, in their order.

Shapes: R rows, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.session import Logits, TokenIds


def apply_timestamp_rules(
    logits: Logits, written: TokenIds, *, timestamps_from: int, end_id: int, max_initial_index: int | None
) -> None:
    """Forbid what no well-formed transcript with times would hold next, in place.

    The first token is a time not later than the limit, or the end where nothing is said and the model may say so. Times
    come in pairs of an end and a start, except before the first word and the end token. They never decrease, and a
    segment is longer than nothing. A time is written where all times together are likelier than any one word.

    Args:
        logits: (R, V) of the next token, tokens that may never be written already at -inf.
        written: (R, T) tokens so far, after the prefix.
        timestamps_from: the id of ``<|0.00|>``.
        end_id: of the end token; words have lower ids.
        max_initial_index: the latest first time, in steps of 0.02 s; no limit when None.

    Source: openai-whisper 20250625, ApplyTimestampRules, checked against it in test_timestamp_rules; there the end
    token is never first.
    """
    if written.shape[1] == 0:
        logits[:, :end_id] = -np.inf
        logits[:, end_id + 1 : timestamps_from] = -np.inf
        if max_initial_index is not None:
            logits[:, timestamps_from + max_initial_index + 1 :] = -np.inf
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


@dataclass(frozen=True, eq=False)
class TokenRules:
    """The rules of one batch."""

    vocabulary: Vocabulary
    timestamps: bool
    """Whether times are written."""
    first: NDArray[np.float32]
    """(V,) what is added to the logits of the first token: 0, or -inf for one that may not be written."""
    later: NDArray[np.float32]
    """(V,) and to those of all others."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, *, num_tokens: int, timestamps: bool) -> "TokenRules":
        """Write down the rules for logits of ``num_tokens`` entries."""
        first, later = (vocabulary.penalties(num_tokens, timestamps=timestamps, first=first) for first in (True, False))
        return cls(vocabulary=vocabulary, timestamps=timestamps, first=first, later=later)

    def apply(self, logits: Logits, written: TokenIds) -> Logits:
        """Give the logits with -inf for what may not follow.

        Args:
            logits: (R, V).
            written: (R, T) tokens after the prefix, the same number in each row.
        """
        allowed = logits + (self.later if written.shape[1] else self.first)
        if self.timestamps:
            apply_timestamp_rules(
                allowed,
                written,
                timestamps_from=self.vocabulary.timestamps_from,
                end_id=self.vocabulary.end_id,
                max_initial_index=self.vocabulary.max_initial_timestamp_index,
            )
        return allowed
