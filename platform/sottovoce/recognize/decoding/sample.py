"""Write the likeliest token again and again, or draw one.

Shapes: R rows, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.session import DecoderSession, Hypothesis, Logits, TokenIds, log_probabilities

_MOSTLY = 0.75  # of the rows; moving the others' caches costs about as much as one token (guess, untested)


@dataclass(frozen=True)
class Draw:
    """How one row is written."""

    limit: int
    """The most tokens, end token included."""
    temperature: float = 0.0
    """At 0 the likeliest token is taken; above it one is drawn, the likelier the colder."""
    generator: np.random.Generator | None = None
    """What is drawn with above 0: one of the row's own, so that its text does not depend on its neighbours."""


def draw_texts(
    session: DecoderSession, logits: Logits, *, rules: TokenRules, draws: Sequence[Draw]
) -> list[Hypothesis]:
    """Write until every row has ended.

    A row that ended is fed end tokens until it leaves the batch together with others; its text does not change.
    Log-probabilities are those of the allowed tokens at temperature 1, whatever they are drawn at, as Whisper has it.

    Args:
        session: has read the prefixes.
        logits: (R, V) of the first token.
        rules: which tokens may be written.
        draws: R.

    Returns:
        R texts.
    """
    end_id = rules.vocabulary.end_id
    limits = np.array([draw.limit for draw in draws])
    written = np.full((len(draws), limits.max()), end_id, dtype=np.int64)
    logprobs = np.zeros(written.shape)
    counts = np.zeros(len(draws), dtype=np.int64)
    is_open = limits > 0
    rows = np.arange(len(draws))  # those still in the batch
    for step in range(limits.max()):
        allowed = rules.apply(logits, written[rows, :step])
        chosen = np.where(is_open[rows], _choose(allowed, [draws[row] for row in rows.tolist()]), end_id)
        logprobs[rows, step] = np.where(is_open[rows], log_probabilities(allowed, chosen), 0.0)
        written[rows, step] = chosen
        counts += is_open
        is_open &= (written[:, step] != end_id) & (counts < limits)
        kept = np.flatnonzero(is_open[rows])
        if not kept.size:
            break
        if kept.size <= _MOSTLY * rows.size:
            session.reorder(kept.tolist())
            rows, chosen = rows[kept], chosen[kept]
        logits = session.advance(chosen)
    return [
        Hypothesis(
            token_ids=tuple(token for token in written[row, :count].tolist() if token != end_id),
            logprobs=tuple(logprobs[row, :count].tolist()),
        )
        for row, count in enumerate(counts)
    ]


def _choose(logits: Logits, draws: Sequence[Draw]) -> TokenIds:
    """Give a token for each row of (R, V)."""
    chosen: TokenIds = logits.argmax(axis=1)
    for row, draw in enumerate(draws):
        if draw.temperature > 0.0 and draw.generator is not None:
            chosen[row] = _draw_token(logits[row], draw.temperature, draw.generator)
    return chosen


def _draw_token(logits: NDArray[np.float32], temperature: float, generator: np.random.Generator) -> int:
    """Draw one of V tokens with a single random number; one at -inf is never drawn."""
    heated: NDArray[np.float64] = (logits.astype(np.float64) - logits.max()) / temperature
    weights: NDArray[np.float64] = np.cumsum(np.exp(heated))
    return int(np.searchsorted(weights, generator.random() * weights[-1], side="right"))
