"""Rules for the next token: Whisper's logit filters in their order.

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
    """Set the logits of tokens to -inf, in place, that no well-formed transcript with timestamps has next.

    The first token is a timestamp within the limit, or the end token if the window has no speech and the model may end
    at once. Timestamps come in pairs of an end and a start, except before the first word and before the end token. They
    never decrease, and no segment has length 0. A timestamp is generated if all timestamps together are likelier than
    any single word.

    Args:
        logits: (R, V) of the next token; tokens that are never allowed are at -inf already.
        written: (R, T) tokens so far, after the prefix.
        timestamps_from: the id of ``<|0.00|>``.
        end_id: the id of the end token; words have lower ids.
        max_initial_index: the latest first timestamp in steps of 0.02 s; no limit if None.

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
    """Allow only timestamps if all of them together are likelier than the likeliest other token."""
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
    """Whether timestamps are generated."""
    first: NDArray[np.float32]
    """(V,) added to the logits of the first token: 0, or -inf for a forbidden token."""
    later: NDArray[np.float32]
    """(V,) added to the logits of all later tokens."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, *, num_tokens: int, timestamps: bool) -> "TokenRules":
        """Build the rules for logits of ``num_tokens`` entries."""
        first, later = (vocabulary.penalties(num_tokens, timestamps=timestamps, first=first) for first in (True, False))
        return cls(vocabulary=vocabulary, timestamps=timestamps, first=first, later=later)

    def apply(self, logits: Logits, written: TokenIds) -> Logits:
        """Return the logits with -inf for forbidden tokens.

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
