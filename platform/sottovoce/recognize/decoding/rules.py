"""Rules for the next token: Whisper's logit filters in their order.

Shapes: R rows, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.model.labels import TokenKinds
from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.session import Logits, TokenIds


def apply_timestamp_rules(
    logits: Logits, written: TokenIds, *, kinds: TokenKinds, max_initial_index: int | None
) -> None:
    """Set the logits of tokens to -inf, in place, that no well-formed transcript with timestamps has next.

    The first token is a timestamp within the limit, or the end token if the window has no speech and the model may end
    at once. Timestamps come in pairs of an end and a start, except before the first word and before the end token. They
    never decrease, and no segment has length 0. A timestamp is generated if all timestamps together are likelier than
    any single word.

    Args:
        logits: (R, V) of the next token; tokens that are never allowed are at -inf already.
        written: (R, T) tokens so far, after the prefix.
        kinds: which ids are words and which are times.
        max_initial_index: the latest first timestamp in steps of 0.02 s; no limit if None.

    Source: openai-whisper 20250625, ApplyTimestampRules, checked against it in test_timestamp_rules; there the end
    token is never first.
    """
    times = slice(kinds.timestamps_from, kinds.timestamps_to)
    if written.shape[1] == 0:
        logits[:, : kinds.end_id] = -np.inf
        logits[:, kinds.end_id + 1 : times.start] = -np.inf
        logits[:, times.stop :] = -np.inf
        if max_initial_index is not None:
            logits[:, times.start + max_initial_index + 1 : times.stop] = -np.inf
    for row, ids in zip(logits, written, strict=True):
        is_time = kinds.are_times(ids)
        ends_segment = False
        if is_time[-1:].any():
            ends_segment = len(ids) > 1 and not is_time[-2]
            if ends_segment:
                row[: kinds.end_id] = -np.inf
                row[times.stop :] = -np.inf
            else:
                row[times] = -np.inf
        if is_time.any():
            earliest = int(ids[is_time][-1]) + (0 if ends_segment else 1)
            row[times.start : earliest] = -np.inf
        _prefer_times(row, times)


def _prefer_times(row: NDArray[np.float32], times: slice) -> None:
    """Allow only timestamps if all of them together are likelier than the likeliest other token."""
    peak = row[times].max(initial=-np.inf)
    if not np.isfinite(peak):
        return
    together = peak + np.log(np.exp(row[times] - peak).sum(dtype=np.float64))
    others = row[: times.start], row[times.stop :]
    if together > max(tokens.max(initial=-np.inf) for tokens in others):
        for tokens in others:
            tokens[:] = -np.inf


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
                kinds=self.vocabulary.kinds,
                max_initial_index=self.vocabulary.max_initial_timestamp_index,
            )
        return allowed
