"""Generate tokens greedily or by sampling.

Shapes: R rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.recognize.decoding.loops import IsLoop
from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.session import DecoderSession, Hypothesis, Logits, TokenIds, log_probabilities

_MOSTLY = 0.75  # of the rows; moving the caches of the others costs about as much as one token (guess, untested)


@dataclass(frozen=True)
class Sampling:
    """How the text of one row is generated."""

    limit: int
    """The most tokens, end token included."""
    temperature: float = 0.0
    """0 takes the likeliest token; above 0 a token is sampled."""
    generator: np.random.Generator | None = None
    """Random numbers for temperatures above 0. Each row has its own, so that its text is independent of other rows."""
    is_loop: IsLoop | None = None
    """Ends a text that repeats itself; None generates every text to its end."""


def sample_texts(
    session: DecoderSession, logits: Logits, *, rules: TokenRules, samplings: Sequence[Sampling]
) -> Iterator[dict[int, Hypothesis]]:
    """Generate tokens until every row has ended, one for each row in a step.

    A row that has ended reads end tokens until it leaves the batch together with others; its text does not change.
    Log-probabilities are those of the allowed tokens at temperature 1, at any sampling temperature, as in Whisper.

    Args:
        session: has read the prefixes.
        logits: (R, V) of the first token.
        rules: which tokens are allowed.
        samplings: R.

    Yields:
        After each step, the texts that ended with it, by their row.
    """
    end_id = rules.vocabulary.end_id
    limits = np.array([sampling.limit for sampling in samplings])
    written = np.full((len(samplings), limits.max()), end_id, dtype=np.int64)
    logprobs = np.zeros(written.shape)
    counts = np.zeros(len(samplings), dtype=np.int64)
    is_open = limits > 0
    if not is_open.all():
        yield {row: Hypothesis((), ()) for row in np.flatnonzero(~is_open).tolist()}
    rows = np.arange(len(samplings))  # those still in the batch
    for step in range(limits.max()):
        allowed = rules.apply(logits, written[rows, :step])
        chosen = np.where(is_open[rows], _choose(allowed, [samplings[row] for row in rows.tolist()]), end_id)
        logprobs[rows, step] = np.where(is_open[rows], log_probabilities(allowed, chosen), 0.0)
        written[rows, step] = chosen
        counts += is_open
        was_open = is_open
        is_open = was_open & (written[:, step] != end_id) & (counts < limits)
        loops = [row for row in np.flatnonzero(is_open).tolist() if _is_loop(samplings[row], written[row, : step + 1])]
        is_open[loops] = False
        yield {
            row: Hypothesis(
                token_ids=tuple(token for token in written[row, : counts[row]].tolist() if token != end_id),
                logprobs=tuple(logprobs[row, : counts[row]].tolist()),
                is_cut=row in loops,
            )
            for row in np.flatnonzero(was_open & ~is_open).tolist()
        }
        kept = np.flatnonzero(is_open[rows])
        if not kept.size:
            return
        if kept.size <= _MOSTLY * rows.size:
            session.reorder(kept.tolist())
            rows, chosen = rows[kept], chosen[kept]
        logits = session.advance(chosen)


def _is_loop(sampling: Sampling, written: TokenIds) -> bool:
    return sampling.is_loop is not None and sampling.is_loop(written.tolist())


def _choose(logits: Logits, samplings: Sequence[Sampling]) -> TokenIds:
    """Choose a token for each row of (R, V)."""
    chosen: TokenIds = logits.argmax(axis=1)
    for row, sampling in enumerate(samplings):
        if sampling.temperature > 0.0 and sampling.generator is not None:
            chosen[row] = _sample_token(logits[row], sampling.temperature, sampling.generator)
    return chosen


def _sample_token(logits: NDArray[np.float32], temperature: float, generator: np.random.Generator) -> int:
    """Sample one of V tokens with a single random number; a token at -inf is never sampled."""
    heated: NDArray[np.float64] = (logits.astype(np.float64) - logits.max()) / temperature
    weights: NDArray[np.float64] = np.cumsum(np.exp(heated))
    return int(np.searchsorted(weights, generator.random() * weights[-1], side="right"))
