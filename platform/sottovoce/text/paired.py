"""Compare two recognizers on the same utterances, with a confidence interval.

Shapes: U utterances, K runs of each recognizer (trained with different seeds).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import Utterance
from sottovoce.text.normalize import Normalizer, build_normalizer
from sottovoce.text.score import NUM_RESAMPLES, count_characters, count_words
from sottovoce.text.scoring_table import Headline, headline_metric, normalizer_for


@dataclass(frozen=True)
class WerDifference:
    """Error rate of the second minus that of the first, as fractions; above zero, the second is worse."""

    difference: float
    low: float
    """Lower end of the bootstrap 95 % interval over the utterances, and over the runs if there are several."""
    high: float
    metric: Headline = "wer"
    """The rate that was compared: the headline of the utterances' languages."""


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

    Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
    section 4 (difference of two systems on the same resampled utterances).
    """
    rules = [build_normalizer(normalizer_for(one, normalizer), spelling) for one in utterances]
    metric = headline_metric(utterances)
    count_errors = count_characters if metric == "cer" else count_words
    references = [rule(one.text) for rule, one in zip(rules, utterances, strict=True)]

    def count(texts: Sequence[str]) -> NDArray[np.int64]:
        triples = zip(references, rules, texts, strict=True)
        return count_errors([(reference, rule(text)) for reference, rule, text in triples])

    counts = [(count(one), count(other)) for one, other in zip(first, second, strict=True)]
    lengths = counts[0][0][:, 3]
    extra = np.array([other[:, :3].sum(axis=1) - one[:, :3].sum(axis=1) for one, other in counts])
    num_runs, num_utterances = extra.shape
    generator = np.random.default_rng(seed)
    resampled = np.empty(NUM_RESAMPLES)
    for index in range(NUM_RESAMPLES):
        runs, sampled = (
            generator.integers(num_runs, size=num_runs),
            generator.integers(num_utterances, size=len(lengths)),
        )
        resampled[index] = extra[np.ix_(runs, sampled)].sum() / max(1, num_runs * lengths[sampled].sum())
    low, high = np.percentile(resampled, [2.5, 97.5])
    return WerDifference(float(extra.sum() / max(1, num_runs * lengths.sum())), float(low), float(high), metric)
