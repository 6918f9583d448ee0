"""Group tokens into words."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

from sottovoce.model.tokenizer import Tokenizer
from sottovoce.text.normalize import LANGUAGES_WITHOUT_SPACES

_INCOMPLETE = "\ufffd"  # the decoder's replacement for an incomplete character


@dataclass(frozen=True)
class WordTokens:
    """A word and its tokens."""

    text: str
    """As decoded, with its leading space."""
    token_ids: tuple[int, ...]


def split_words(tokenizer: Tokenizer, token_ids: Sequence[int], *, language: str) -> list[WordTokens]:
    """Split tokens into words: at spaces, or at characters for languages without spaces.

    A token of punctuation is a separate word.

    Args:
        tokenizer: Whisper's.
        token_ids: text tokens, without special tokens and timestamps.
        language: ISO 639-1 code.

    Returns:
        The words; their tokens, joined, are ``token_ids``.

    Source: openai-whisper 20250625, checked against it in test_word_tokens.
    """
    pieces = _split_characters(tokenizer, token_ids)
    if language in LANGUAGES_WITHOUT_SPACES:
        return pieces
    words: list[WordTokens] = []
    for piece in pieces:
        begins = piece.text.startswith(" ") or piece.text.strip() in string.punctuation
        if begins or not words:
            words.append(piece)
        else:
            words[-1] = WordTokens(words[-1].text + piece.text, words[-1].token_ids + piece.token_ids)
    return words


def _split_characters(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[WordTokens]:
    """Split where tokens complete a character; a replacement character of the whole text counts as complete."""

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    whole = decode(token_ids)
    pieces: list[WordTokens] = []
    open_ids: list[int] = []
    num_characters = 0
    for token in token_ids:
        open_ids.append(token)
        text = decode(open_ids)
        broken = text.find(_INCOMPLETE)
        if broken < 0 or whole[num_characters + broken : num_characters + broken + 1] == _INCOMPLETE:
            pieces.append(WordTokens(text, tuple(open_ids)))
            num_characters += len(text)
            open_ids = []
    if open_ids:
        pieces.append(WordTokens(decode(open_ids), tuple(open_ids)))
    return pieces
