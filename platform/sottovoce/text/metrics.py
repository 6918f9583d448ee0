"""The table of metrics that ``jobs.score_manifest`` can report, as metrics of the evaluate library.

To add a metric, add its name to ``MetricName`` and its entry to ``METRICS``: any ``evaluate.Metric`` whose ``compute``
takes predictions, references and seed and returns its value under its own name. It then is a choice of
``--metrics``, and appears in ``score.json`` and the printed table. ``evaluate.load`` would download a script at run
time; these are shipped here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Literal, TypeAlias

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from sottovoce.text.score import count_characters, count_words, error_rate

MetricName: TypeAlias = Literal["wer", "cer", "mer", "ser"]
"""wer: word error rate; cer: character error rate; mer: match error rate, errors over all aligned words and
insertions, never above 1; ser: sentence error rate, the fraction of utterances with any error."""

CountErrors: TypeAlias = Callable[[Sequence[tuple[str, str]]], NDArray[np.int64]]
"""U pairs of reference and hypothesis to (U, 4): substitutions, deletions, insertions and what they are divided by."""

_FEATURES = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
_INPUTS = "predictions: hypotheses, one string per utterance. references: what was said, in the same order."


class ErrorRateMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """An error rate with its counts and a bootstrap 95 % interval; it keeps its inputs in memory.

    ``compute(predictions=..., references=..., seed=0)`` returns, under the rate's name, a fraction where 0 is perfect;
    and NAME_low, NAME_high, substitutions, deletions, insertions and num_reference.
    """

    def __init__(self, rate: str, count: CountErrors, description: str) -> None:
        """Name the rate, its counts and what it is; see ``METRICS``."""
        self._rate, self._count, self._description = rate, count, description
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self._description,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(_FEATURES),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], *, seed: int = 0
    ) -> dict[str, float | int]:
        rate = error_rate(self._count(list(zip(references, predictions, strict=True))), seed=seed)
        return {
            self._rate: rate.rate,
            f"{self._rate}_low": rate.low,
            f"{self._rate}_high": rate.high,
            "substitutions": rate.substitutions,
            "deletions": rate.deletions,
            "insertions": rate.insertions,
            "num_reference": rate.num_reference,
        }


def compute_metrics(
    names: Iterable[MetricName], normalized: Sequence[tuple[str, str]], *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Compute metrics of the table.

    Args:
        names: which.
        normalized: U pairs of reference and hypothesis, normalized.
        seed: of the bootstrap.

    Returns:
        For each name what its ``compute`` returned; its value is under the name again.
    """
    references, predictions = [pair[0] for pair in normalized], [pair[1] for pair in normalized]
    return {name: METRICS[name]().compute(predictions=predictions, references=references, seed=seed) for name in names}


def _count_aligned(pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    counts = count_words(pairs)
    counts[:, 3] += counts[:, 2]  # reference words are hits, substitutions and deletions
    return counts


def _count_sentences(pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Count a wrong utterance as one substitution in one unit."""
    return np.array([[reference != hypothesis, 0, 0, 1] for reference, hypothesis in pairs], np.int64).reshape(-1, 4)


METRICS: Final[Mapping[MetricName, Callable[[], evaluate.Metric]]] = {
    "wer": partial(ErrorRateMetric, "wer", count_words, "Word errors over reference words."),
    "cer": partial(ErrorRateMetric, "cer", count_characters, "Character errors over reference characters."),
    "mer": partial(ErrorRateMetric, "mer", _count_aligned, "Word errors over aligned words and insertions."),
    "ser": partial(ErrorRateMetric, "ser", _count_sentences, "Utterances with any error over all utterances."),
}
"""How each metric is built, by name. Source of mer: Morris, Maier and Green 2004, "From WER and RIL to MER and WIL"."""
