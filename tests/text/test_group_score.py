import pytest

from sottovoce.schema import Task, Utterance
from sottovoce.text.group_score import GroupScore, name_normalizer, score_utterances
from sottovoce.text.score import score_texts


def spoken(text: str, *, language: str = "en", corpus: str | None = None, task: Task = "transcribe") -> Utterance:
    return Utterance(id=text, audio="a.wav", duration_s=1.0, text=text, language=language, corpus=corpus, task=task)


MIXED = [
    spoken("Two tablets.", corpus="clinic"),
    spoken("I'm here.", corpus="home"),
    spoken("Zwei Tabletten.", language="de", corpus="home"),
]
HEARD = ["2 tablets", "I am there", "2 Tabletten"]


def test_each_text_goes_through_its_own_languages_normalizer() -> None:
    scored = score_utterances(MIXED, HEARD, normalizer="english")
    assert (scored.score.wer.substitutions, scored.score.wer.num_reference) == (2, 7)
    assert scored.score.normalizer == "english, basic elsewhere"
    assert scored.score.num_utterances == 3


def test_corpora_and_languages_have_scores_of_their_own() -> None:
    groups = {(group.kind, group.name): group for group in score_utterances(MIXED, HEARD, normalizer="english").groups}
    assert list(groups) == [("corpus", "clinic"), ("corpus", "home"), ("language", "de"), ("language", "en")]
    assert groups["corpus", "clinic"].wer == 0.0
    assert groups["corpus", "home"].wer == pytest.approx(2 / 5)
    assert groups["corpus", "home"].normalizer == "english, basic elsewhere"
    german = groups["language", "de"]
    assert (german.num_utterances, german.num_words, german.wer, german.normalizer) == (1, 2, 0.5, "basic")
    assert groups["language", "en"].normalizer == "english"


def test_a_group_scores_what_its_texts_score_alone() -> None:
    group = score_utterances(MIXED, HEARD, normalizer="none").groups[1]
    alone = score_texts([one.text for one in MIXED[1:]], HEARD[1:], normalizer="none")
    assert (group.wer, group.wer_low, group.wer_high) == (alone.wer.rate, alone.wer.low, alone.wer.high)
    assert group.cer == alone.cer.rate


def test_one_corpus_in_one_language_has_no_groups_and_the_plain_score() -> None:
    scored = score_utterances(MIXED[:1], HEARD[:1], normalizer="english")
    assert scored.groups == ()
    assert scored.score == score_texts(["Two tablets."], ["2 tablets"], normalizer="english")


def test_utterances_without_a_corpus_are_a_group_beside_the_named() -> None:
    groups = score_utterances([spoken("a"), spoken("b", corpus="home")], ["a", "b"], normalizer="basic").groups
    assert [group.name for group in groups] == ["home", "unnamed"]


def test_a_translation_is_english_text() -> None:
    one = spoken("Two tablets.", language="de", task="translate")
    scored = score_utterances([one], ["2 tablets"], normalizer="english")
    assert (scored.score.wer.rate, scored.score.normalizer) == (0.0, "english")


def test_the_name_says_what_was_used_and_not_what_was_asked_for() -> None:
    german = spoken("a", language="de")
    assert name_normalizer([german], "english") == "basic"
    assert name_normalizer([spoken("a"), german], "english") == "english, basic elsewhere"
    assert name_normalizer([spoken("a"), german], "none") == "none"
    assert name_normalizer([], "english") == "english"


def test_groups_survive_their_file_form() -> None:
    group = score_utterances(MIXED, HEARD, normalizer="english").groups[0]
    assert GroupScore.model_validate_json(group.model_dump_json()) == group


def test_different_numbers_of_utterances_and_hypotheses_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_utterances(MIXED, HEARD[:2], normalizer="basic")
