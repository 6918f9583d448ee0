import numpy as np
import pytest
from transformers import WhisperTokenizerFast

from sottovoce.errors import CheckpointError
from sottovoce.model.tokenizer import FileTokenizer, read_tokenizer


@pytest.fixture(scope="module")
def theirs(micro_assets) -> WhisperTokenizerFast:
    return WhisperTokenizerFast.from_pretrained(micro_assets)


@pytest.fixture(scope="module")
def ours(micro_assets) -> FileTokenizer:
    return read_tokenizer(micro_assets)


@pytest.mark.parametrize(
    "text", [" the quick brown fox", "Grüße aus Köln ", "राम की किताब", "你好世界", "a <|en|> b", "", " \n"]
)
def test_text_becomes_the_ids_of_transformers(ours, theirs, text) -> None:
    ids = ours(text, add_special_tokens=False).input_ids
    assert ids == theirs(text, add_special_tokens=False).input_ids
    assert ours.decode(ids, clean_up_tokenization_spaces=False) == theirs.decode(
        ids, clean_up_tokenization_spaces=False
    )


def test_ids_become_the_tokens_and_text_of_transformers(ours, theirs) -> None:
    ids = np.random.default_rng(0).integers(0, theirs.eos_token_id, 2_000).tolist()
    assert ours.decode(ids, clean_up_tokenization_spaces=False) == theirs.decode(
        ids, clean_up_tokenization_spaces=False
    )
    assert [ours.convert_ids_to_tokens(one) for one in ids] == theirs.convert_ids_to_tokens(ids)


def test_special_tokens_have_the_ids_of_transformers(ours, theirs) -> None:
    assert (ours.eos_token_id, ours.unk_token_id) == (theirs.eos_token_id, theirs.unk_token_id)
    for token in ("<|startoftranscript|>", "<|de|>", "<|translate|>", "<|notimestamps|>", "<|30.00|>", "<|unknown|>"):
        assert ours.convert_tokens_to_ids(token) == theirs.convert_tokens_to_ids(token)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing"), ("{", "tokenizer.json: "), ("other", r"no <\|endoftext\|>")]
)
def test_a_tokenizer_that_cannot_be_read_is_named(micro_assets, tmp_path, content, message) -> None:
    if content == "other":
        text = (micro_assets / "tokenizer.json").read_text(encoding="utf-8")
        (tmp_path / "tokenizer.json").write_text(text.replace("<|endoftext|>", "<|end|>"), encoding="utf-8")
    elif content is not None:
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer(tmp_path)
