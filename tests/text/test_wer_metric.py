import jiwer
import pytest

from sottovoce.text.wer_metric import CerMetric, WerMetric

REFERENCES = ["the patient rests", "Two tablets."]
HYPOTHESES = ["the patient wrests", "2 tablets"]


def test_metrics_equal_jiwer_without_a_download():
    wer = WerMetric().compute(predictions=HYPOTHESES, references=REFERENCES)
    cer = CerMetric().compute(predictions=HYPOTHESES, references=REFERENCES)
    assert wer is not None
    assert cer is not None
    assert wer["wer"] == pytest.approx(jiwer.wer(REFERENCES, HYPOTHESES))
    assert cer["cer"] == pytest.approx(jiwer.cer(REFERENCES, HYPOTHESES))
    assert wer["wer_low"] <= wer["wer"] <= wer["wer_high"]


def test_metric_takes_a_normalizer_and_batches():
    metric = WerMetric()
    metric.add_batch(predictions=HYPOTHESES[:1], references=REFERENCES[:1])
    metric.add(prediction=HYPOTHESES[1], reference=REFERENCES[1])
    result = metric.compute(normalizer="english")
    assert result is not None
    assert (result["substitutions"], result["num_reference"]) == (1, 5)
