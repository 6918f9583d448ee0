from pathlib import Path

import pytest
from transformers import WhisperTokenizerFast

from sottovoce.errors import LabelTooLongError, LanguageError
from sottovoce.model.labels import encode_labels, prefix_ids


@pytest.fixture(scope="module")
def tokenizer(micro_assets: Path) -> WhisperTokenizerFast:
    return WhisperTokenizerFast.from_pretrained(micro_assets)


def test_labels_are_prefix_text_and_end_token(tokenizer: WhisperTokenizerFast) -> None:
    ids = encode_labels(tokenizer, "Hello world.", language="en")
    assert ids[:4] == [50_258, 50_259, 50_359, 50_363]
    assert ids[-1] == 50_257
    assert ids.count(50_258) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == " Hello world."


def test_an_empty_text_has_no_text_tokens(tokenizer: WhisperTokenizerFast) -> None:
    assert encode_labels(tokenizer, "  ", language="de") == [50_258, 50_261, 50_359, 50_363, 50_257]


def test_with_timestamps_the_prefix_leaves_no_timestamps_out(tokenizer: WhisperTokenizerFast) -> None:
    assert prefix_ids(tokenizer, language="fr", task="translate", timestamps=True) == [50_258, 50_265, 50_358]


def test_a_label_of_448_tokens_fits_and_one_more_raises(tokenizer: WhisperTokenizerFast) -> None:
    assert len(encode_labels(tokenizer, " ".join(["the"] * 443), language="en")) == 448
    with pytest.raises(LabelTooLongError, match="449"):
        encode_labels(tokenizer, " ".join(["the"] * 444), language="en")


def test_an_unknown_language_raises_language_error(tokenizer: WhisperTokenizerFast) -> None:
    with pytest.raises(LanguageError, match="'xx'"):
        encode_labels(tokenizer, "hello", language="xx")
