from pathlib import Path

import pytest

from sottovoce.data.label_limits import count_label_tokens, load_languages
from sottovoce.errors import CheckpointError
from sottovoce.text.languages import find_language


@pytest.mark.parametrize(("text", "is_too_long"), [("the " * 443, False), ("the " * 444, True), ("short", False)])
def test_label_lengths_are_checked_without_naming_a_tokenizer(text: str, is_too_long: bool):
    assert (count_label_tokens(text.strip(), tokenizer="micro") > 448) == is_too_long


def test_every_language_with_a_token_is_known_and_no_other():
    languages = load_languages("micro")
    assert len(set(languages.values())) == 99
    assert all(languages[code] == code for code in ("en", "haw", "jw", "su"))
    assert "yue" not in languages  # large-v3's vocabulary has it
    assert not {"transcribe", "translate", "startoftranscript", "nospeech"} & set(languages)


@pytest.mark.parametrize(
    ("name", "code"),
    [("de", "de"), ("DE", "de"), (" German ", "de"), ("zh-CN", "zh"), ("pt_BR", "pt"), ("Castilian", "es")],
)
def test_a_language_is_found_by_code_region_and_name(name: str, code: str):
    assert find_language(name, load_languages("micro")) == code


@pytest.mark.parametrize("name", ["rw", "klingon", "", "nan-tw", "translate"])
def test_a_language_without_a_token_is_not_found(name: str):
    assert find_language(name, load_languages("micro")) is None


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_languages(str(tmp_path))
