"""The decoder of an engine as decoding sees it, and hypotheses with their log-probabilities.

Shapes: B windows, R rows (texts in progress, one or several for a window), T tokens, V vocabulary.
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
        """Read a prefix with an empty cache. A second call starts over, with one row for each window.

        Args:
            prefix: (B, T).
            positions: the P positions whose logits are returned; all T positions if None.

        Returns:
            (B, P, V).
        """

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each row, (R,), and return (R, V)."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Continue from the caches of these rows, which may be repeated, left out or reordered."""

    def select(self, rows: Sequence[int]) -> "DecoderSession":
        """Return a session of some of the windows, without encoding them again."""


def log_sums(logits: Logits) -> NDArray[np.float64]:
    """Return the log-sum-exp of logits (R, V): (R,). Logits minus it are log-probabilities."""
    peaks = logits.max(axis=1)
    sums: NDArray[np.float64] = peaks + np.log(np.exp(logits - peaks[:, None]).sum(axis=1, dtype=np.float64))
    return sums


def log_probabilities(logits: Logits, token_ids: TokenIds) -> NDArray[np.float64]:
    """Return the log-softmax of (R, V) logits at one token each: (R,)."""
    chosen: NDArray[np.float64] = logits[np.arange(len(logits)), token_ids].astype(np.float64) - log_sums(logits)
    return chosen


@dataclass(frozen=True)
class Hypothesis:
    """One text of one window."""

    token_ids: tuple[int, ...]
    """(T,) end token excluded."""
    logprobs: tuple[float, ...]
    """(T,) of the tokens, or (T + 1,) with that of the end token if it was generated within the limit; empty where
    the engine returns only their sum and nobody asked for more."""
    is_cut: bool = False
    """Whether it ended early because it repeats itself; see ``loops``."""
    known_sum: float | None = None
    """The sum of ``logprobs``, from an engine that returns it."""

    @property
    def sum_logprob(self) -> float:
        """Log-probability of the whole text."""
        return float(np.sum(self.logprobs)) if self.known_sum is None else self.known_sum

    @property
    def avg_logprob(self) -> float:
        """Mean as Whisper computes it: the end token counts, generated or not."""
        return self.sum_logprob / (len(self.token_ids) + 1)


def likeliest(hypotheses: Sequence[Hypothesis], *, length_penalty: float | None) -> Hypothesis:
    """Return the text with the highest log-probability for its length; the first one of equals.

    Args:
        hypotheses: at least one.
        length_penalty: exponent of ((5 + length) / 6), from Wu et al. 2016, equation 14; the length itself if None.

    Source: openai-whisper 20250625, MaximumLikelihoodRanker; there an empty text is a division by zero.
    """

    def score(hypothesis: Hypothesis) -> float:
        length = len(hypothesis.token_ids)
        penalty = max(length, 1) if length_penalty is None else ((5 + length) / 6) ** length_penalty
        return hypothesis.sum_logprob / penalty

    return max(hypotheses, key=score)
