"""What decoding needs of an engine: one encoded batch and the decoder's cache for it.

Shapes: B windows, R rows (texts being written, one or several for a window), T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


def log_sums(logits: Logits) -> NDArray[np.float64]:
    """Give what is taken from logits (R, V) to make them log-probabilities: (R,)."""
    peaks = logits.max(axis=1)
    sums: NDArray[np.float64] = peaks + np.log(np.exp(logits - peaks[:, None]).sum(axis=1, dtype=np.float64))
    return sums


def log_probabilities(logits: Logits, token_ids: TokenIds) -> NDArray[np.float64]:
    """Give the log-softmax of (R, V) logits at one token each: (R,)."""
    chosen: NDArray[np.float64] = logits[np.arange(len(logits)), token_ids].astype(np.float64) - log_sums(logits)
    return chosen


@dataclass(frozen=True)
class Hypothesis:
    """One text of one window."""

    token_ids: tuple[int, ...]
    """(T,) end token excluded."""
    logprobs: tuple[float, ...]
    """(T,) of the tokens, or (T + 1,) with that of the end token, where it was written before the room was over."""

    @property
    def sum_logprob(self) -> float:
        """Log-probability of the whole."""
        return float(np.sum(self.logprobs))

    @property
    def avg_logprob(self) -> float:
        """Mean as Whisper has it: the end token counts, whether it was written or not."""
        return self.sum_logprob / (len(self.token_ids) + 1)


def likeliest(hypotheses: Sequence[Hypothesis], *, length_penalty: float | None) -> Hypothesis:
    """Choose the text with the highest log-probability for its length; the first of equals.

    Args:
        hypotheses: at least one.
        length_penalty: exponent of ((5 + length) / 6), from Wu et al. 2016, equation 14; the length itself when None.

    Source: openai-whisper 20250625, MaximumLikelihoodRanker; there an empty text is a division by zero.
    """

    def score(hypothesis: Hypothesis) -> float:
        length = len(hypothesis.token_ids)
        penalty = max(length, 1) if length_penalty is None else ((5 + length) / 6) ** length_penalty
        return hypothesis.sum_logprob / penalty

    return max(hypotheses, key=score)
