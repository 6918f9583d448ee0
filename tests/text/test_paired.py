"""Two recognizers on the same utterances: the difference of their WER, and how sure it is."""

import numpy as np
import pytest

from sottovoce.schema import Utterance
from sottovoce.text.group_score import score_utterances
from sottovoce.text.paired import compare_counts, compare_wer

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


def test_a_clear_difference_is_certain_and_equal_texts_are_not() -> None:
    clear = compare_wer(SAID, [RIGHT], [ONE_WRONG], normalizer="basic")
    assert (clear.is_certain, clear.num_units, clear.num_clusters, clear.clusters) == (True, 160, 40, "utterance")
    assert clear.chance < 0.001
    same = compare_wer(SAID, [ONE_WRONG], [ONE_WRONG], normalizer="basic")
    assert (same.is_certain, same.chance) == (False, 1.0)


def test_four_errors_on_one_side_are_chance_though_the_interval_excludes_zero() -> None:
    change = compare_counts([[0] * 40], [[1] * 4 + [0] * 36], [4] * 40)
    assert change.low > 0.0
    assert change.chance == pytest.approx(2 / 16, abs=0.03)
    assert not change.is_certain


def test_a_model_that_suits_one_of_eight_speakers_is_no_better_for_others() -> None:
    worse = np.repeat([1, 0, 0, 0, 0, 0, 0, 0], 10)
    speakers = [f"s{number // 10}" for number in range(80)]
    by_utterance = compare_counts([[0] * 80], [worse], [10] * 80)
    by_speaker = compare_counts([[0] * 80], [worse], [10] * 80, speakers=speakers)
    assert (by_utterance.is_certain, by_speaker.is_certain) == (True, False)
    assert (by_speaker.clusters, by_speaker.num_clusters) == ("speaker", 8)
    assert by_speaker.high - by_speaker.low > 2 * (by_utterance.high - by_utterance.low)


def test_utterances_are_resampled_where_speakers_are_few_or_unknown() -> None:
    few = compare_counts([[0] * 10], [[1] * 10], [5] * 10, speakers=["a", "b"] * 5)
    unknown = compare_counts([[0] * 10], [[1] * 10], [5] * 10, speakers=[*"abcdefghi", None])
    assert (few.clusters, few.num_clusters) == (unknown.clusters, unknown.num_clusters) == ("utterance", 10)


def test_a_single_utterance_is_compared_without_certainty() -> None:
    change = compare_counts([[0]], [[3]], [4])
    assert (change.difference, change.is_certain) == (0.75, False)
