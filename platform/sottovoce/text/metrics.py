"""WER and CER as metrics of the evaluate library, shipped here so that nothing is downloaded.

``evaluate.load("wer")`` fetches a script at run time; ``WerMetric()`` takes its place.
"""

from collections.abc import Sequence

import datasets
import evaluate

from sottovoce.text.normalize import Normalizer
from sottovoce.text.score import ErrorRate, score_texts

_FEATURES = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
_INPUTS = "predictions: hypotheses, one string per utterance. references: what was said, in the same order."


class WerMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """Word error rate: ``WerMetric().compute(predictions=..., references=..., normalizer="english")``.

    ``compute`` returns wer, wer_low, wer_high, substitutions, deletions, insertions and num_reference.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _describe("Word error rate with counts and a bootstrap 95 % interval; a fraction, 0 is perfect.")

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], *, normalizer: Normalizer = "none", seed: int = 0
    ) -> dict[str, float | int]:
        return _to_dict("wer", score_texts(references, predictions, normalizer=normalizer, seed=seed).wer)


class CerMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """Character error rate: ``CerMetric().compute(predictions=..., references=..., normalizer="basic")``.

    ``compute`` returns cer, cer_low, cer_high, substitutions, deletions, insertions and num_reference.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _describe("Character error rate with counts and a bootstrap 95 % interval; a fraction, 0 is perfect.")

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], *, normalizer: Normalizer = "none", seed: int = 0
    ) -> dict[str, float | int]:
        return _to_dict("cer", score_texts(references, predictions, normalizer=normalizer, seed=seed).cer)


def _describe(description: str) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description, citation="", inputs_description=_INPUTS, features=datasets.Features(_FEATURES)
    )


def _to_dict(name: str, error_rate: ErrorRate) -> dict[str, float | int]:
    return {
        name: error_rate.rate,
        f"{name}_low": error_rate.low,
        f"{name}_high": error_rate.high,
        "substitutions": error_rate.substitutions,
        "deletions": error_rate.deletions,
        "insertions": error_rate.insertions,
        "num_reference": error_rate.num_reference,
    }
