"""Limits of a Whisper tokenizer: the length of labels, and the languages that have a token."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, cast

from sottovoce.errors import CheckpointError, LabelTooLongError
from sottovoce.schema import MAX_LABEL_TOKENS
from sottovoce.text.languages import LANGUAGES, language_spellings

# transformers is imported where it is used: it takes five seconds, every Ray worker imports this module, and only long
# texts need it.
if TYPE_CHECKING:
    from transformers import WhisperTokenizerFast

_NUM_TOKENS_AROUND_TEXT = 6  # prefix of four, the space before the text, the end token


def count_label_tokens(text: str, *, tokenizer: str) -> int:
    """Return the number of tokens of a transcript's label, or an upper bound of it if the bound is at most 448.

    The label includes prefix and end token. A token covers at least one byte, so short texts need no tokenizer.
    """
    bound = len(text.encode()) + _NUM_TOKENS_AROUND_TEXT
    return bound if bound <= MAX_LABEL_TOKENS else load_token_counter(tokenizer)(text)


@cache
def load_token_counter(source: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a transcript's label, with prefix and end token.

    Raises:
        CheckpointError: the folder holds no tokenizer.
    """
    from sottovoce.model.labels import encode_labels

    tokenizer = _load_tokenizer(source)

    def count_tokens(text: str) -> int:
        try:
            return len(encode_labels(tokenizer, text, language="en"))  # any language: each has one token
        except LabelTooLongError as error:
            return int(error.args[0])

    return count_tokens


@cache
def load_languages(source: str) -> Mapping[str, str]:
    """Return the code of every language with a token, by its codes and by its English names.

    Raises:
        CheckpointError: the folder holds no tokenizer.
    """
    from sottovoce.model.labels import ENGLISH, is_english_only

    tokenizer = _load_tokenizer(source)
    if is_english_only(tokenizer):
        return language_spellings({ENGLISH: LANGUAGES[ENGLISH]})
    # Whisper's vocabulary holds the languages between these two, 99 of them or, since large-v3, 100.
    first = cast(int, tokenizer.convert_tokens_to_ids("<|startoftranscript|>"))
    last = cast(int, tokenizer.convert_tokens_to_ids("<|translate|>"))
    codes = {token.strip("<|>") for token in tokenizer.convert_ids_to_tokens(list(range(first + 1, last)))}
    return language_spellings({code: LANGUAGES.get(code, code) for code in codes})


@cache
def _load_tokenizer(source: str) -> "WhisperTokenizerFast":
    from transformers import WhisperTokenizerFast

    from sottovoce.model.source import resolve_folder

    folder = resolve_folder(source)
    try:
        tokenizer: WhisperTokenizerFast = WhisperTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:  # transformers raises TypeError if vocabulary files are missing
        raise CheckpointError(folder, "it holds no Whisper tokenizer") from error
    return tokenizer
