"""Greedy decoding, the same for every engine.

Shapes: B batch, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sottovoce.recognize.timestamps import apply_timestamp_rules
from sottovoce.recognize.vocabulary import Vocabulary

TokenIds: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]


class DecoderSession(Protocol):
    """One batch of encoded windows and the decoder's cache for it."""

    def start(self, prefix: TokenIds) -> Logits:
        """Read a prefix (B, T) with an empty cache; called again, it starts over. Gives (B, T, V)."""

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each window, (B,). Gives (B, V)."""


@dataclass(frozen=True)
class Hypothesis:
    """What greedy decoding wrote for one window."""

    token_ids: tuple[int, ...]
    """(T,) end token excluded."""
    avg_logprob: float
    no_speech_prob: float


def detect_languages(session: DecoderSession, vocabulary: Vocabulary, *, batch_size: int) -> list[str]:
    """Name the likeliest language of each window.

    Returns:
        B ISO 639-1 codes.
    """
    logits = session.start(np.full((batch_size, 1), vocabulary.start_id, dtype=np.int64))
    best = logits[:, 0, vocabulary.language_ids].argmax(axis=1)
    return [vocabulary.languages[index] for index in best]


def decode_greedy(
    session: DecoderSession, prefix: TokenIds, *, vocabulary: Vocabulary, limits: Sequence[int], timestamps: bool
) -> list[Hypothesis]:
    """Write the likeliest token again and again until every window has ended.

    A window that ended keeps its place and is fed end tokens; its result does not change.

    Args:
        session: the encoded batch.
        prefix: (B, T) tokens before the transcript.
        vocabulary: which tokens may be written.
        limits: B, the most tokens each window may write, end token included.
        timestamps: whether times are written; see ``apply_timestamp_rules``.

    Returns:
        B hypotheses.
    """
    prefix_logits = session.start(prefix)
    batch_size, _, num_tokens = prefix_logits.shape
    no_speech = _log_probabilities(prefix_logits[:, 0], np.full(batch_size, vocabulary.no_speech_id))
    penalties = vocabulary.penalties(num_tokens, timestamps=timestamps, first=False)
    logits = prefix_logits[:, -1] + vocabulary.penalties(num_tokens, timestamps=timestamps, first=True)
    written = np.full((batch_size, max(limits)), vocabulary.end_id, dtype=np.int64)
    sums, counts = np.zeros(batch_size), np.zeros(batch_size, dtype=np.int64)
    is_open = np.array(limits) > 0
    for step in range(max(limits)):
        if timestamps:
            apply_timestamp_rules(
                logits,
                written[:, :step],
                timestamps_from=vocabulary.timestamps_from,
                end_id=vocabulary.end_id,
            )
        chosen = np.where(is_open, logits.argmax(axis=1), vocabulary.end_id)
        sums += np.where(is_open, _log_probabilities(logits, chosen), 0.0)
        counts += is_open
        written[:, step] = chosen
        is_open &= (chosen != vocabulary.end_id) & (counts < np.array(limits))
        if not is_open.any():
            break
        logits = session.advance(chosen) + penalties
    return [
        Hypothesis(
            token_ids=tuple(int(token) for token in row if token != vocabulary.end_id),
            avg_logprob=float(total) / max(int(count), 1),
            no_speech_prob=float(np.exp(silence)),
        )
        for row, total, count, silence in zip(written, sums, counts, no_speech, strict=True)
    ]


def _log_probabilities(logits: Logits, token_ids: TokenIds) -> NDArray[np.float64]:
    """Give the log-softmax of (B, V) logits at one token each: (B,)."""
    peaks = logits.max(axis=1)
    log_sums = np.log(np.exp(logits - peaks[:, None]).sum(axis=1, dtype=np.float64))
    chosen: NDArray[np.float64] = logits[np.arange(len(logits)), token_ids].astype(np.float64) - peaks - log_sums
    return chosen
