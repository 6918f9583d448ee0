"""Which tokens may come next: what Whisper's logit filters do, in their order.

Shapes: R rows, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.recognize.decoding.session import Logits, TokenIds
from sottovoce.recognize.decoding.timestamp_rules import apply_timestamp_rules
from sottovoce.recognize.vocabulary import Vocabulary


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
