import pytest
from transformers.models.whisper import tokenization_whisper

from sottovoce.text.languages import LANGUAGES, find_language, first_subtag, language_spellings

NAMES = {"en": "english", "pt": "portuguese", "zh": "chinese", "tl": "tagalog", "no": "norwegian", "jw": "javanese"}
SPELLINGS = language_spellings(NAMES)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("en", "en"),
        ("English", "en"),
        ("pt-BR", "pt"),
        ("pt_BR", "pt"),
        ("zh-CN", "zh"),
        ("zh-Hant-TW", "zh"),
        ("cmn_hans_cn", "zh"),
        ("Mandarin", "zh"),
        ("fil", "tl"),
        ("fil-PH", "tl"),
        ("nb-NO", "no"),
        ("jv", "jw"),
        (" CHINESE ", "zh"),
    ],
)
def test_a_language_is_found_by_code_locale_and_name(name: str, code: str):
    assert find_language(name, SPELLINGS) == code


@pytest.mark.parametrize("name", ["", "de", "German", "flemish", "he", "iw", "-", "english language"])
def test_a_language_that_the_model_does_not_know_is_not_found(name: str):
    assert find_language(name, SPELLINGS) is None


def test_the_table_is_transformers_own_in_its_order():
    assert list(LANGUAGES.items()) == list(tokenization_whisper.LANGUAGES.items())


def test_every_name_of_whispers_own_table_is_known():
    spellings = language_spellings(LANGUAGES)
    codes = tokenization_whisper.TO_LANGUAGE_CODE
    assert {name: find_language(name, spellings) for name in codes} == codes


def test_a_locale_begins_with_its_language():
    assert [first_subtag(one) for one in ("pt-BR", "cmn_hans_cn", " DE ")] == ["pt", "cmn", "de"]
