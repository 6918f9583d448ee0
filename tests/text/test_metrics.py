from typing import get_args

import jiwer
import pytest

from sottovoce.schema import Utterance
from sottovoce.text.metrics import METRICS, MetricName, compute_metrics
from sottovoce.text.score import score_texts
from sottovoce.text.scoring_table import headline_metric

REFERENCES = ["the patient rests", "Two tablets.", "three"]
HYPOTHESES = ["the patient wrests", "2 tablets", "three"]
PAIRS = list(zip(REFERENCES, HYPOTHESES, strict=True))


def test_every_name_is_in_the_table_and_computes_its_own_value() -> None:
    assert set(METRICS) == set(get_args(MetricName))
    computed = compute_metrics(METRICS, PAIRS)
    assert all(0 < computed[name][name] < 1 for name in METRICS)
    assert all(
        computed[name][f"{name}_low"] <= computed[name][name] <= computed[name][f"{name}_high"] for name in METRICS
    )


def test_rates_equal_jiwers_and_the_scores_without_a_download() -> None:
    computed = compute_metrics(["wer", "cer", "mer"], PAIRS)
    for name, reference in (("wer", jiwer.wer), ("cer", jiwer.cer), ("mer", jiwer.mer)):
        assert computed[name][name] == pytest.approx(reference(REFERENCES, HYPOTHESES))
    score = score_texts(REFERENCES, HYPOTHESES, normalizer="none")
    assert (computed["wer"]["wer"], computed["wer"]["wer_low"]) == (score.wer.rate, score.wer.low)
    assert (computed["cer"]["cer"], computed["cer"]["cer_high"]) == (score.cer.rate, score.cer.high)


def test_insertions_push_wer_above_one_and_mer_never() -> None:
    computed = compute_metrics(["wer", "mer", "ser"], [("a", "b c d"), ("", "e"), ("f", "f")])
    assert computed["wer"]["wer"] == 4 / 2
    assert computed["mer"]["mer"] == 4 / 5
    assert computed["ser"]["ser"] == 2 / 3


def test_a_metric_takes_batches() -> None:
    metric = METRICS["wer"]()
    metric.add_batch(predictions=HYPOTHESES[:2], references=REFERENCES[:2])
    metric.add(prediction=HYPOTHESES[2], reference=REFERENCES[2])
    result = metric.compute()
    assert result is not None
    assert (result["substitutions"], result["num_reference"]) == (3, 6)


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        ([("zh", "transcribe"), ("ja", "transcribe")], "cer"),
        ([("zh", "transcribe"), ("en", "transcribe")], "wer"),
        ([("zh", "translate")], "wer"),
        ([], "wer"),
    ],
)
def test_the_headline_is_cer_where_no_language_puts_spaces_between_words(
    spoken: list[tuple[str, str]], expected: MetricName
) -> None:
    utterances = [
        Utterance.model_validate(
            {"id": str(index), "audio": "a.wav", "duration_s": 1, "text": "x", "language": language, "task": task}
        )
        for index, (language, task) in enumerate(spoken)
    ]
    assert headline_metric(utterances) == expected
