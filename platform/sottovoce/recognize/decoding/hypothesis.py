"""A text that was written, and which of several is the best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
