"""Two recognizers on the same utterances: the difference of their WER, and how sure it is."""

import pytest

from sottovoce.schema import Utterance
from sottovoce.text.group_score import score_utterances
from sottovoce.text.paired import compare_wer

SAID = [
    Utterance(id=f"u{index}", audio=f"{index}.wav", duration_s=1.0, text="one two three four") for index in range(40)
]
RIGHT = ["one two three four"] * 40
ONE_WRONG = ["one two three for"] * 20 + RIGHT[20:]
OTHERS_WRONG = RIGHT[:20] + ["one too three four"] * 20


def test_the_difference_is_that_of_the_two_rates() -> None:
    change = compare_wer(SAID, [RIGHT], [ONE_WRONG], normalizer="basic")
    wer = score_utterances(SAID, ONE_WRONG, normalizer="basic").score.wer.rate
    assert change.difference == pytest.approx(wer)
    assert 0.0 < change.low < wer < change.high


def test_errors_both_make_cancel_out_and_errors_on_other_utterances_do_not() -> None:
    same = compare_wer(SAID, [ONE_WRONG], [ONE_WRONG], normalizer="basic")
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    other = compare_wer(SAID, [ONE_WRONG], [OTHERS_WRONG], normalizer="basic")
    assert other.difference == 0.0
    assert other.low < -0.01 < 0.01 < other.high


def test_several_runs_are_averaged_and_their_disagreement_widens_the_interval() -> None:
    agreeing = compare_wer(SAID, [RIGHT] * 2, [ONE_WRONG, ONE_WRONG], normalizer="basic")
    differing = compare_wer(SAID, [RIGHT] * 2, [RIGHT, ["one too three for"] * 20 + RIGHT[20:]], normalizer="basic")
    assert agreeing.difference == differing.difference == 0.125
    assert differing.high - differing.low > 1.5 * (agreeing.high - agreeing.low)


def test_texts_are_made_comparable_first() -> None:
    assert compare_wer(SAID, [RIGHT], [["One, two; THREE four!"] * 40], normalizer="basic").difference == 0.0


def test_different_numbers_of_texts_or_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare_wer(SAID, [RIGHT], [RIGHT[1:]], normalizer="basic")
    with pytest.raises(ValueError, match="zip"):
        compare_wer(SAID, [RIGHT], [RIGHT, RIGHT], normalizer="basic")
