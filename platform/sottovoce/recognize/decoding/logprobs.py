"""Log-probabilities from logits.

Shapes: R rows, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from sottovoce.recognize.decoding.session import Logits, TokenIds


def log_sums(logits: Logits) -> NDArray[np.float64]:
    """Give what is taken from logits (R, V) to make them log-probabilities: (R,)."""
    peaks = logits.max(axis=1)
    sums: NDArray[np.float64] = peaks + np.log(np.exp(logits - peaks[:, None]).sum(axis=1, dtype=np.float64))
    return sums


def log_probabilities(logits: Logits, token_ids: TokenIds) -> NDArray[np.float64]:
    """Give the log-softmax of (R, V) logits at one token each: (R,)."""
    chosen: NDArray[np.float64] = logits[np.arange(len(logits)), token_ids].astype(np.float64) - log_sums(logits)
    return chosen
