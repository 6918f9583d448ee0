from pathlib import Path

import pytest
from transformers import WhisperTokenizerFast

from sottovoce.words.word_tokens import split_words

TEXTS = {
    "en": ' "Well," she said, isn\'t it (nearly) 3.5% of 1,200? Yes—it is... OK!',
    "de": " Über die Straße, für 20 € – „schön“!",  # noqa: RUF001
    "fr": " L'été, c'est-à-dire : où êtes-vous ?",
    "ja": "今日は、いい天気ですね。",
    "zh": "你好，世界！我是𠮷。",  # noqa: RUF001
    "th": "สวัสดีครับ",
}


@pytest.fixture(scope="module")
def tokenizer(micro_assets: Path) -> WhisperTokenizerFast:
    return WhisperTokenizerFast.from_pretrained(micro_assets, local_files_only=True)


def ids_of(tokenizer: WhisperTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def test_words_begin_at_spaces_and_punctuation_stands_alone(tokenizer: WhisperTokenizerFast) -> None:
    words = split_words(tokenizer, ids_of(tokenizer, " Ask not, antidisestablishment."), language="en")
    assert [word.text for word in words] == [" Ask", " not", ",", " antidisestablishment", "."]
    assert len(words[3].token_ids) > 1


@pytest.mark.parametrize("language", TEXTS)
def test_words_together_are_the_tokens_and_the_text(tokenizer: WhisperTokenizerFast, language: str) -> None:
    ids = ids_of(tokenizer, TEXTS[language])
    words = split_words(tokenizer, ids, language=language)
    assert [token for word in words for token in word.token_ids] == ids
    assert "".join(word.text for word in words) == TEXTS[language]


def test_languages_without_spaces_are_split_at_whole_characters(tokenizer: WhisperTokenizerFast) -> None:
    texts = [word.text for word in split_words(tokenizer, ids_of(tokenizer, TEXTS["zh"]), language="zh")]
    assert len(texts) > 5
    assert not any("\ufffd" in text for text in texts)


def test_no_token_is_lost_where_a_character_is_broken(tokenizer: WhisperTokenizerFast) -> None:
    ids = [*ids_of(tokenizer, " one"), *ids_of(tokenizer, "𠮷")[:2], *ids_of(tokenizer, " two")]
    for cut in (ids, ids[:-1]):
        words = split_words(tokenizer, cut, language="en")
        assert [token for word in words for token in word.token_ids] == cut


def test_no_tokens_are_no_words(tokenizer: WhisperTokenizerFast) -> None:
    assert split_words(tokenizer, [], language="en") == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # openai-whisper leaves a file open
@pytest.mark.parametrize("language", TEXTS)
def test_words_are_those_of_openai_whisper(tokenizer: WhisperTokenizerFast, language: str) -> None:
    whisper = pytest.importorskip("whisper.tokenizer", reason="openai-whisper is in the benchmarks extra")
    theirs = whisper.get_tokenizer(multilingual=True, num_languages=99, language=language, task="transcribe")
    ids = ids_of(tokenizer, TEXTS[language])
    words = split_words(tokenizer, ids, language=language)
    texts, tokens = theirs.split_to_word_tokens(ids)
    assert [(word.text, list(word.token_ids)) for word in words] == list(zip(texts, tokens, strict=True))
