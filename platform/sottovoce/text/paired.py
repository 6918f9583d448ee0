"""Compare two recognizers on the same utterances: how far apart they are, and whether chance explains it.

Shapes: U utterances, C clusters (speakers, or utterances), K runs of each recognizer (trained with different seeds),
R resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

from sottovoce.schema import Utterance
from sottovoce.text.normalize import Normalizer, build_normalizer
from sottovoce.text.score import count_characters, count_words
from sottovoce.text.scoring_table import Headline, headline_metric, normalizer_for

SIGNIFICANCE: Final = 0.05
"""Largest probability of a difference by chance at which a verdict names a winner: 1 comparison of 20."""
_LARGEST_CHANCE = 0.04  # below it, since the probability is known to 0.005 only (standard error)
FEWEST_SPEAKERS: Final = 6
"""Fewer cannot show a difference between models for other speakers: swapped at random, five speakers agree in 1 of 16
comparisons."""

ClusterKind: TypeAlias = Literal["speaker", "utterance"]

_NUM_RESAMPLES = 2_000  # standard error of a probability near 0.05: 0.005
_MAX_DRAWS = 4_000_000  # resampled clusters in memory at once: 32 MB


@dataclass(frozen=True)
class WerDifference:
    """Error rate of the second minus that of the first, as fractions; above zero, the second is worse."""

    difference: float
    low: float
    """Lower end of the bootstrap 95 % interval over the clusters, and over the runs if there are several."""
    high: float
    chance: float
    """Probability of at least this difference between equal recognizers: two-sided, by swapping the two at random."""
    num_units: int
    """Reference words, or characters where ``metric`` is cer."""
    num_clusters: int
    clusters: ClusterKind
    """What was resampled and swapped as a whole: all utterances of a speaker, or single utterances."""
    metric: Headline = "wer"
    """The rate that was compared: the headline of the utterances' languages."""

    @property
    def is_certain(self) -> bool:
        """Whether chance is an unlikely reason: the interval excludes zero, and so does the test by swapping."""
        return self.chance < _LARGEST_CHANCE and (self.low > 0.0 or self.high < 0.0)


def compare_wer(
    utterances: Sequence[Utterance],
    first: Sequence[Sequence[str]],
    second: Sequence[Sequence[str]],
    *,
    normalizer: Normalizer,
    spelling: Mapping[str, str] | None = None,
    seed: int = 0,
) -> WerDifference:
    """Compare two recognizers utterance by utterance, so that utterances that are hard for both cancel out.

    Args:
        utterances: U, with their references.
        first: (K, U) texts that the runs of the first recognized.
        second: (K, U) texts that the runs of the second recognized.
        normalizer: of all texts; see ``normalizer_for``.
        spelling: see ``normalize``.
        seed: of the bootstrap.

    Raises:
        ValueError: different numbers of texts or runs.
    """
    rules = [build_normalizer(normalizer_for(one, normalizer), spelling) for one in utterances]
    metric = headline_metric(utterances)
    count_errors = count_characters if metric == "cer" else count_words
    references = [rule(one.text) for rule, one in zip(rules, utterances, strict=True)]

    def count(texts: Sequence[str]) -> NDArray[np.int64]:
        triples = zip(references, rules, texts, strict=True)
        return count_errors([(reference, rule(text)) for reference, rule, text in triples])

    counts = [(count(one), count(other)) for one, other in zip(first, second, strict=True)]
    return compare_counts(
        [one[:, :3].sum(axis=1) for one, _ in counts],
        [other[:, :3].sum(axis=1) for _, other in counts],
        counts[0][0][:, 3],
        speakers=[one.speaker for one in utterances],
        metric=metric,
        seed=seed,
    )


def compare_counts(
    first: ArrayLike,
    second: ArrayLike,
    lengths: ArrayLike,
    *,
    speakers: Sequence[str | None] = (),
    metric: Headline = "wer",
    seed: int = 0,
) -> WerDifference:
    """Compare two recognizers by their errors in each utterance.

    A speaker's utterances are alike: a model that suits a voice is better on all of them. So whole speakers are
    resampled where every speaker is known and there are ``FEWEST_SPEAKERS``. Otherwise utterances are, and the result
    holds for these speakers alone.

    Args:
        first: (K, U) errors of the first recognizer's runs.
        second: (K, U) errors of the second recognizer's runs.
        lengths: (U,) words or characters of the references.
        speakers: U speakers; empty if none is known.
        metric: what the lengths count.
        seed: of the bootstrap.

    Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
    section 4 (difference of two systems on the same resampled utterances); Hesterberg 2015, "What Teachers Should Know
    About the Bootstrap", section 5.2 (percentiles moved outwards, as few clusters need); Noreen 1989,
    "Computer-Intensive Methods for Testing Hypotheses" (approximate randomization).
    """
    units = np.asarray(lengths, np.float64)
    clusters, indices = _cluster(speakers, len(units))
    num_clusters = int(indices.max(initial=-1)) + 1
    extra = np.stack([_add_up(row, indices) for row in np.asarray(second, np.float64) - np.asarray(first, np.float64)])
    sizes = _add_up(units, indices)
    total = max(1.0, float(units.sum()))
    generator = np.random.default_rng(seed)
    low, high = _interval(extra, sizes, generator)
    return WerDifference(
        difference=float(extra.mean(axis=0).sum()) / total,
        low=low,
        high=high,
        chance=_chance(extra.mean(axis=0), generator),
        num_units=int(units.sum()),
        num_clusters=num_clusters,
        clusters=clusters,
        metric=metric,
    )


def _cluster(speakers: Sequence[str | None], num_utterances: int) -> tuple[ClusterKind, NDArray[np.int64]]:
    """Return what is resampled, and the (U,) index of each utterance's cluster."""
    known = [one for one in speakers if one is not None]
    names = sorted(set(known))
    if len(known) < num_utterances or len(names) < FEWEST_SPEAKERS:
        return "utterance", np.arange(num_utterances)
    numbers = {name: number for number, name in enumerate(names)}
    return "speaker", np.array([numbers[one] for one in known], np.int64)


def _add_up(values: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (C,) sums of (U,) values over the utterances of each cluster."""
    return np.bincount(indices, weights=values).astype(np.float64)


def _interval(
    extra: NDArray[np.float64], sizes: NDArray[np.float64], generator: np.random.Generator
) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the rates' difference.

    Args:
        extra: (K, C) errors that the second makes more than the first.
        sizes: (C,) reference units.
        generator: of the resamples.
    """
    num_runs, num_clusters = extra.shape
    rates = []
    for num_rows in _row_counts(num_clusters):
        weights = generator.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_rows)
        runs = generator.multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=num_rows) / num_runs
        errors = ((weights @ extra.T) * runs).sum(axis=1)
        rates.append(errors / np.maximum(1.0, weights @ sizes))
    freedom = max(1, num_clusters - 1)
    tail = 100 * float(ndtr(np.sqrt(num_clusters / freedom) * stdtrit(freedom, SIGNIFICANCE / 2)))
    low, high = np.percentile(np.concatenate(rates), [tail, 100 - tail])
    return float(low), float(high)


def _chance(extra: NDArray[np.float64], generator: np.random.Generator) -> float:
    """Return the probability of at least this total of (C,) differences where each cluster's sign is random."""
    differing = extra[extra != 0.0]
    observed = abs(float(extra.sum())) - 1e-9  # sums in another order may differ in the last bit
    if not len(differing):
        return 1.0
    num_reached = 0
    for num_rows in _row_counts(len(differing)):
        signs = 2 * generator.integers(2, size=(num_rows, len(differing)), dtype=np.int8) - 1
        num_reached += int((np.abs(signs @ differing) >= observed).sum())
    return (num_reached + 1) / (_NUM_RESAMPLES + 1)  # what was observed is one of the outcomes


def _row_counts(num_columns: int) -> Iterator[int]:
    """Return how many resamples to draw at once, so that memory stays bounded; together they are all."""
    step = max(1, _MAX_DRAWS // max(1, num_columns))
    return (min(step, _NUM_RESAMPLES - start) for start in range(0, _NUM_RESAMPLES, step))
