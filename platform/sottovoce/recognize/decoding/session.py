"""What decoding needs of an engine: one encoded batch and the decoder's cache for it.

Shapes: B windows, R rows (texts being written, one or several for a window), T tokens, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

TokenIds: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]


class DecoderSession(Protocol):
    """One batch of encoded windows and the decoder's cache for it."""

    def start(self, prefix: TokenIds, positions: Sequence[int] | None = None) -> Logits:
        """Read a prefix with an empty cache; called again, it starts over, with one row for each window.

        Args:
            prefix: (B, T).
            positions: the P places whose logits are wanted; all T of them when None.

        Returns:
            (B, P, V).
        """

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each row, (R,). Gives (R, V)."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Let the texts go on from these rows' caches: repeated, left out, or in another order."""

    def select(self, rows: Sequence[int]) -> "DecoderSession":
        """Give a session of some of the windows, which are not encoded again."""
