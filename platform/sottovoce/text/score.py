"""Word and character error rates with their counts and 95 % intervals.

Shapes: U utterances, R bootstrap resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import NDArray

from sottovoce.text.normalize import Normalizer, build_normalizer
from sottovoce.text.scoring_table import Headline

NUM_RESAMPLES = 1_000  # enough for a 95 % interval to two digits (Bisani and Ney 2004 use 10 000)
_MAX_DRAWS = 4_000_000  # resampled utterance indices in memory at once: 32 MB of int64


@dataclass(frozen=True)
class ErrorRate:
    """Errors over reference units (words or characters), micro-averaged over all utterances."""

    rate: float
    """Fraction; above 1 with many insertions. The number of errors itself where the references have no units."""
    substitutions: int
    deletions: int
    insertions: int
    num_reference: int
    """Words or characters in the references."""
    low: float
    """Lower end of the bootstrap 95 % interval."""
    high: float
    """Upper end of the bootstrap 95 % interval."""


@dataclass(frozen=True)
class PublishedRate:
    """An error rate as Whisper's authors compute it, for comparison with published results."""

    rate: ErrorRate
    metric: str
    """What to call the rate: wer, or cer where each letter is counted as a word."""
    normalizer: str
    """Name of Whisper's normalizer or normalizers."""


@dataclass(frozen=True)
class Score:
    """Error rates of hypotheses against references, normalized and raw."""

    wer: ErrorRate
    cer: ErrorRate
    wer_raw: ErrorRate
    cer_raw: ErrorRate
    normalizer: str
    """Name of the normalizer or normalizers that ``wer`` and ``cer`` were computed after."""
    num_utterances: int
    headline: Headline = "wer"
    """The rate to quote first and to choose by: cer where no language puts spaces between words."""
    published: PublishedRate | None = None
    """None where ``wer`` is that rate already, and where the languages of the texts are not known."""


def score_texts(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    normalizer: Normalizer,
    seed: int = 0,
    spelling: Mapping[str, str] | None = None,
) -> Score:
    """Score hypotheses against references of the same order.

    Where a reference is empty, the whole hypothesis counts as insertions.

    Args:
        references: U reference transcripts.
        hypotheses: U recognized texts.
        normalizer: applied to both sides for ``wer`` and ``cer``; auto is marks here, for want of a language.
        seed: of the bootstrap.
        spelling: see ``normalize``.

    Raises:
        ValueError: different numbers of references and hypotheses.
    """
    rules = build_normalizer(normalizer, spelling)
    pairs = list(zip(references, hypotheses, strict=True))
    normalized = [(rules(reference), rules(hypothesis)) for reference, hypothesis in pairs]
    return score_pairs(pairs, normalized, normalizer="marks" if normalizer == "auto" else normalizer, seed=seed)


def score_pairs(
    pairs: Sequence[tuple[str, str]],
    normalized: Sequence[tuple[str, str]],
    *,
    normalizer: str,
    seed: int = 0,
    headline: Headline = "wer",
    published: PublishedRate | None = None,
) -> Score:
    """Score pairs of reference and hypothesis that are normalized already.

    Args:
        pairs: U pairs of reference and hypothesis, not normalized.
        normalized: the same U pairs, each normalized for its language.
        normalizer: name of that normalization in the score.
        seed: of the bootstrap.
        headline: of the score.
        published: of the score.
    """
    keep = build_normalizer("none")
    raw = [(keep(reference), keep(hypothesis)) for reference, hypothesis in pairs]
    return Score(
        wer=error_rate(count_words(normalized), seed=seed),
        cer=error_rate(count_characters(normalized), seed=seed),
        wer_raw=error_rate(count_words(raw), seed=seed),
        cer_raw=error_rate(count_characters(raw), seed=seed),
        normalizer=normalizer,
        num_utterances=len(pairs),
        headline=headline,
        published=published,
    )


def describe_headline(score: Score) -> str:
    """Describe the rate to quote, and the one to compare with published results, each with what it was computed by."""
    rate = score.cer if score.headline == "cer" else score.wer
    quoted = f"to quote: {_describe_rate(score.headline, score.normalizer, rate)}"
    published = score.published
    if published is None:
        return quoted
    return f"{quoted}\nas published: {_describe_rate(published.metric, published.normalizer, published.rate)}"


def _describe_rate(metric: str, normalizer: str, rate: ErrorRate) -> str:
    interval = f"95 % interval {100 * rate.low:.2f} - {100 * rate.high:.2f}"
    return f"{metric.upper()} ({normalizer}) {100 * rate.rate:.2f} %, {interval}"


def count_words(pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Return (U, 4): substitutions, deletions, insertions and reference words of each utterance."""
    scored = [pair for pair in pairs if pair[0]]
    output = jiwer.process_words([ref for ref, _ in scored], [hyp for _, hyp in scored]) if scored else None
    insertions = [len(hyp.split()) for ref, hyp in pairs if not ref]
    return _join_counts(output, [not ref for ref, _ in pairs], insertions)


def count_characters(pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Return (U, 4): substitutions, deletions, insertions and reference characters, spaces included."""
    scored = [pair for pair in pairs if pair[0]]
    output = jiwer.process_characters([ref for ref, _ in scored], [hyp for _, hyp in scored]) if scored else None
    insertions = [len(hyp) for ref, hyp in pairs if not ref]
    return _join_counts(output, [not ref for ref, _ in pairs], insertions)


def _join_counts(
    output: jiwer.WordOutput | jiwer.CharacterOutput | None, is_empty: Sequence[bool], insertions: Sequence[int]
) -> NDArray[np.int64]:
    """Merge the counts of empty references, which jiwer refuses, with those of the aligned pairs."""
    counts = np.zeros((len(is_empty), 4), np.int64)
    empty = np.array(is_empty, bool)
    counts[empty, 2] = insertions
    if output is not None:
        counts[~empty] = [
            _count_chunks(chunks, len(reference))
            for chunks, reference in zip(output.alignments, output.references, strict=True)
        ]
    return counts


def _count_chunks(chunks: Sequence[jiwer.AlignmentChunk], num_reference: int) -> tuple[int, int, int, int]:
    totals = {"substitute": 0, "delete": 0, "insert": 0, "equal": 0}
    for chunk in chunks:
        width = chunk.hyp_end_idx - chunk.hyp_start_idx if chunk.type == "insert" else 0
        totals[chunk.type] += width or chunk.ref_end_idx - chunk.ref_start_idx
    return totals["substitute"], totals["delete"], totals["insert"], num_reference


def error_rate(counts: NDArray[np.int64], *, seed: int) -> ErrorRate:
    """Add up (U, 4) counts to one rate, with a bootstrap interval over the utterances."""
    substitutions, deletions, insertions, num_reference = (int(total) for total in counts.sum(axis=0))
    low, high = _bootstrap(counts[:, :3].sum(axis=1), counts[:, 3], seed=seed)
    return ErrorRate(
        rate=(substitutions + deletions + insertions) / max(1, num_reference),
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        num_reference=num_reference,
        low=low,
        high=high,
    )


def _bootstrap(errors: NDArray[np.int64], lengths: NDArray[np.int64], *, seed: int) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the rate over resampled corpora.

    Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".
    """
    num_utterances = len(errors)
    if not num_utterances:
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    rates = np.empty(NUM_RESAMPLES)
    step = max(1, _MAX_DRAWS // num_utterances)
    for start in range(0, NUM_RESAMPLES, step):
        num_rows = min(step, NUM_RESAMPLES - start)
        indices = generator.integers(num_utterances, size=(num_rows, num_utterances))
        rates[start : start + num_rows] = errors[indices].sum(axis=1) / np.maximum(1, lengths[indices].sum(axis=1))
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
