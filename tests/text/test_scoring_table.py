"""Each language has a normalizer and a headline, and Whisper's own figure stands beside it."""

# ruff: noqa: RUF001  # texts of many scripts

import jiwer
import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from sottovoce.schema import Utterance
from sottovoce.text.group_score import name_normalizer, score_utterances
from sottovoce.text.languages import LANGUAGES
from sottovoce.text.normalize import LANGUAGES_WITHOUT_SPACES, normalize
from sottovoce.text.paired import compare_wer
from sottovoce.text.score import describe_headline, score_texts
from sottovoce.text.scoring_table import SCORING, headline_metric, normalizer_for, scoring_of


def spoken(text: str, language: str, *, translated: bool = False) -> Utterance:
    task = "translate" if translated else "transcribe"
    return Utterance(id=text, audio="a.wav", duration_s=1.0, text=text, language=language, task=task)


def test_every_language_is_in_the_table() -> None:
    assert SCORING.keys() == LANGUAGES.keys()
    by_characters = {code for code, scoring in SCORING.items() if scoring.headline == "cer"}
    assert by_characters == LANGUAGES_WITHOUT_SPACES == {"zh", "ja", "th", "lo", "km", "my", "yue"}
    assert {code for code, scoring in SCORING.items() if scoring.normalizer == "english"} == {"en"}
    assert not [code for code, scoring in SCORING.items() if scoring.normalizer == "basic"]


def test_an_unknown_language_is_scored_as_most_are() -> None:
    assert (scoring_of("xx").normalizer, scoring_of("xx").headline) == ("marks", "wer")


@pytest.mark.parametrize(
    ("language", "expected"), [("en", "english"), ("hi", "marks"), ("th", "unspaced"), ("yi", "pointed")]
)
def test_auto_follows_the_language_and_a_named_normalizer_does_not(language: str, expected: str) -> None:
    one = spoken("a", language)
    assert normalizer_for(one, "auto") == expected
    assert normalizer_for(spoken("a", language, translated=True), "auto") == "english"
    assert normalizer_for(one, "basic") == "basic"
    assert name_normalizer([one], "auto") == expected


def test_the_headline_is_cer_in_khmer_and_wer_as_soon_as_words_are_spaced() -> None:
    assert headline_metric([spoken("a", "km"), spoken("b", "th")]) == "cer"
    assert headline_metric([spoken("a", "km"), spoken("b", "vi")]) == "wer"


def test_a_wrong_vowel_sign_is_an_error_by_default_and_none_by_whispers_rules() -> None:
    score = score_utterances([spoken("राम की किताब", "hi")], ["राम का कीताब"], normalizer="auto").score
    assert (score.normalizer, score.headline, score.wer.rate) == ("marks", "wer", pytest.approx(2 / 3))
    assert score.published is not None
    assert (score.published.normalizer, score.published.metric) == ("basic", "wer")
    assert score.published.rate.rate == 0.0
    assert describe_headline(score).splitlines() == [
        "to quote: WER (marks) 66.67 %, 95 % interval 66.67 - 66.67",
        "as published: WER (basic) 0.00 %, 95 % interval 0.00 - 0.00",
    ]


def test_english_is_its_own_published_figure() -> None:
    score = score_utterances([spoken("Two tablets.", "en")], ["2 tablets"], normalizer="auto").score
    assert score == score_texts(["Two tablets."], ["2 tablets"], normalizer="english")
    assert describe_headline(score) == "to quote: WER (english) 0.00 %, 95 % interval 0.00 - 0.00"


def test_a_pause_is_no_error_in_chinese_and_the_published_figure_is_over_letters() -> None:
    score = score_utterances([spoken("你好，世界", "zh")], ["你好世杰"], normalizer="auto").score
    assert (score.headline, score.cer.rate, score.cer.num_reference) == ("cer", 1 / 4, 4)
    assert score.published is not None
    assert (score.published.metric, score.published.normalizer) == ("cer", "basic, split letters")
    assert (score.published.rate.rate, score.published.rate.num_reference) == (1 / 4, 4)


def test_groups_of_several_languages_have_their_own_headline_and_interval() -> None:
    scored = score_utterances([spoken("你好世界", "zh"), spoken("Haus", "de")], ["你好世杰", "Maus"], normalizer="auto")
    groups = {group.name: group for group in scored.groups}
    assert (groups["zh"].rate_name, groups["zh"].error_rate, groups["zh"].error_interval) == ("CER", 0.25, (0.25, 0.25))
    assert (groups["de"].rate_name, groups["de"].error_rate) == ("WER", 1.0)
    assert scored.score.headline == "wer"
    assert scored.score.normalizer == "marks; unspaced"
    old = groups["zh"].model_copy(update={"cer_low": None, "cer_high": None})
    assert old.error_interval == (0.25, 0.25)


def test_recognizers_are_compared_by_characters_where_words_are_not_spaced() -> None:
    said = [spoken("你好世界", "zh")]
    change = compare_wer(said, [["你好世界"]], [["你好世杰"]], normalizer="auto")
    assert (change.difference, change.metric) == (0.25, "cer")


# What is wrong in the tools that published results were made with, and what our own normalizers do instead.


def test_whispers_basic_puts_spaces_for_marks_and_hides_wrong_vowels() -> None:
    assert normalize("नमस्ते", "basic") == "नमस त"
    assert normalize("राम की किताब", "basic") == normalize("राम का कीताब", "basic")
    assert len(normalize("வணக்கம் எப்படி இருக்கிறீர்கள்", "basic").split()) == 10
    assert normalize("ไม่", "basic") == normalize("ไม้", "basic")


def test_whispers_basic_keeps_composed_accents_and_cuts_words_at_others() -> None:
    assert normalize("u\u0308ber", "basic") == "über"
    assert normalize("ọ̀rẹ́", "basic") == "ọ rẹ"


def test_whispers_basic_cuts_turkish_words_at_their_capital_and_stressed_russian_ones() -> None:
    assert normalize("İstanbul", "basic") == "i stanbul"
    assert normalize("за\u0301мок", "basic") == "за мок"


def test_whispers_basic_drops_what_stands_between_signs_of_comparison() -> None:
    assert normalize("2 < 3 words 5 > 4", "basic") == normalize("2 < nothing > 4", "basic") == "2 4"


def test_characters_of_jiwer_are_code_points_and_its_words_end_at_a_space_alone() -> None:
    assert jiwer.cer("கோ", "கா") == 1 / 2  # two code points that are one letter
    assert jiwer.wer("a\u00a0b", "a b") > 0.0  # texts are split here before they get there
    assert score_texts(["a\u00a0b"], ["a b"], normalizer="none").wer.rate == 0.0


def test_a_comma_is_an_error_in_chinese_by_basic_and_characters() -> None:
    assert score_texts(["你好，世界"], ["你好世界"], normalizer="basic").cer.rate == 1 / 5
    assert BasicTextNormalizer(split_letters=True)("你好，世界") == "你 好 世 界"
