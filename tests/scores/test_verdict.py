"""The verdict on two models, in a sentence that says how sure it is and for whom."""

import json

import pytest
from scored_utterances import align

from sottovoce.errors import ManifestError
from sottovoce.scores.verdict import OtherScore, judge, read_score

SAID = "the cat sat near a warm fire"
WRONG = "the hat sat near a warm fire"


def scored(num_wrong: int, *, num_speakers: int = 0):
    speakers = [None if num_speakers == 0 else f"s{number % num_speakers}" for number in range(40)]
    return align(
        *((SAID, WRONG if number < num_wrong else SAID, {"speaker": one}) for number, one in enumerate(speakers))
    )


def other(num_wrong: int) -> OtherScore:
    texts = {str(number): WRONG if number < num_wrong else SAID for number in range(40)}
    return OtherScore(name="base", decoding="greedy", hypotheses=texts)


def test_the_better_model_is_named_with_points_interval_and_chance():
    verdict = judge(scored(2, num_speakers=40), other(30), model="mine", normalizer="auto")
    assert verdict.is_certain
    assert verdict.difference == pytest.approx(-28 / 280)
    assert verdict.sentence.startswith("mine is better than base by 10.0 points of WER (95 % interval ")
    assert "on 280 words; such a difference arises by chance in fewer than 1 of 100 comparisons." in verdict.sentence
    assert verdict.sentence.endswith("It holds for other speakers like these 40.")


def test_the_worse_model_is_named_worse_with_a_positive_interval():
    sentence = judge(scored(30, num_speakers=2), other(2), model="mine", normalizer="auto").sentence
    assert sentence.startswith("mine is worse than base by 10.0 points of WER (95 % interval ")
    assert "interval -" not in sentence
    assert sentence.endswith("It holds for these 2 speakers alone.")


def test_equal_models_cannot_be_told_apart():
    verdict = judge(scored(3), other(4), model="mine", normalizer="auto")
    assert not verdict.is_certain
    assert verdict.sentence.startswith("No difference can be told on 280 words between mine and base:")
    assert "the WER of the former is 0.4 points lower (95 % interval " in verdict.sentence
    assert verdict.sentence.endswith("it holds if each utterance has a speaker of its own.")


def test_models_with_as_many_errors_are_said_to_have_them():
    verdict = judge(scored(3), other(3), model="mine", normalizer="auto")
    assert "between mine and base: errors are as many." in verdict.sentence


def test_a_score_without_some_of_the_utterances_is_refused_by_name():
    partial = OtherScore(name="base", decoding="", hypotheses={str(number): SAID for number in range(39)})
    with pytest.raises(ManifestError, match=r"base.*lacks 1 of 40 utterances, such as 39"):
        judge(scored(2), partial, model="mine", normalizer="auto")


def test_a_score_is_read_from_its_file_and_other_files_are_refused(tmp_path):
    path = tmp_path / "score.json"
    path.write_text(json.dumps({"model": "m", "recognizer": "torch", "decoding": "greedy", "hypotheses": {"a": "b"}}))
    assert read_score(path) == OtherScore(name="m", decoding="greedy", hypotheses={"a": "b"})
    for content in ("{}", "[1]", "no json"):
        path.write_text(content)
        with pytest.raises(ManifestError, match="is no score"):
            read_score(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_score(tmp_path / "missing.json")
