"""The verdict says what a context costs and gains, how certain that is, and what to do."""

import pytest

from sottovoce.tune.context_record import Comparison, describe_comparison


def compare(wer_rise: float, low: float, high: float) -> Comparison:
    return Comparison(
        context_s=(2.0, 10.0), reference_s=(30.0, 30.0), engine="torch", wer_rise=wer_rise, low=low, high=high,
        training_speedup=4.24, recognition_speedup=5.06, bound=0.005,
    )  # fmt: skip


def test_a_small_cost_is_accepted_with_the_setting_to_use() -> None:
    assert describe_comparison(compare(0.001, -0.002, 0.004)) == (
        "A context of 2-10 s instead of 30 s costs 0.10 points of WER (interval of the change -0.20 to +0.40) and "
        "trains 4.2x and recognizes 5.1x as fast; use audio_context_s: [2, 10]."
    )


def test_a_gain_is_described_as_saving() -> None:
    assert "saves 1.00 points" in describe_comparison(compare(-0.01, -0.02, 0.0))


@pytest.mark.parametrize(
    ("wer_rise", "low", "high", "advice"),
    [
        (0.001, -0.01, 0.012, "use audio_context_s: [2, 10], though the interval reaches above the bound of 0.5"),
        (0.03, 0.02, 0.04, "more than the bound of 0.5 points: keep audio_context_s: [30, 30]"),
        (0.03, -0.01, 0.07, "more than the bound of 0.5 points, though the interval reaches below it"),
    ],
)
def test_the_advice_says_when_the_interval_leaves_it_open(
    wer_rise: float, low: float, high: float, advice: str
) -> None:
    assert advice in describe_comparison(compare(wer_rise, low, high))
