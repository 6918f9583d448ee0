"""Clean transcripts before training by named rules; case and punctuation change only by rules for them."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

CleaningRule: TypeAlias = Literal[
    "unicode_nfc",
    "whitespace",
    "drop_invisible",
    "straight_quotes",
    "drop_markup",
    "sentence_case",
    "english_i",
]
"""unicode_nfc: one code point for one accented letter; whitespace: single spaces, none at the ends; drop_invisible:
without control, zero-width and direction characters; straight_quotes: ' and " for the curly ones; drop_markup: without
<unk>, [laughter], {breath} and (noise); sentence_case: text that is wholly upper case in lower case after its first
letter; english_i: the English word i in upper case."""

_QUOTES = str.maketrans({**dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')})  # noqa: RUF001  # intended
# Tags as corpora write them: <unk>, <breath/>, [laughter], [inaudible 0:12], {cough}, ((unclear)); in round brackets
# one lower-case word only, since people also write asides in them. 60 characters are more than any known tag (guess).
_MARKUP = re.compile(
    r"\s*(?:<[/\w][^<>\n]{0,60}>|\[[^\[\]\n]{0,60}\]|\{[^{}\n]{0,60}\}|\(\([^()\n]{0,60}\)\)|\([a-z_]+\))"
)
# Cf but not the joiners U+200C and U+200D, which Persian and Indic spelling needs; Cc but not white space.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
_ENGLISH_I = re.compile(r"(?<![\w'’-])i(?=$|[\s,;:!?]|\.(?!\w)|['’](?:m|ve|ll|d)\b)")  # noqa: RUF001  # both apostrophes


def clean_text(text: str, rules: Sequence[CleaningRule]) -> str:
    """Apply rules in the given order.

    Args:
        text: a transcript.
        rules: names of rules; without any the text is returned unchanged.
    """
    for rule in rules:
        text = _RULES[rule](text)
    return text


def compose(text: str) -> str:
    """Write each accented letter as one code point (Unicode NFC), so that equal text gets equal tokens."""
    return unicodedata.normalize("NFC", text)


def unify_whitespace(text: str) -> str:
    """Replace every run of white space, also no-break and ideographic spaces, by one space; strip the ends."""
    return " ".join(text.split())


def drop_invisible(text: str) -> str:
    """Drop byte order marks, soft hyphens, zero-width spaces, direction marks and control characters."""
    return _INVISIBLE.sub("", text)


def straighten_quotes(text: str) -> str:
    """Replace curly and low quotation marks and apostrophes by straight ones; keep guillemets."""
    return text.translate(_QUOTES)


def drop_markup(text: str) -> str:
    """Drop transcribers' tags for sounds, with the text inside their brackets and the space before them."""
    return _MARKUP.sub("", text).strip()


def to_sentence_case(text: str) -> str:
    """Write text that is all upper case in lower case except for its first letter; return other text unchanged.

    Names and acronyms lose their capitals, and Turkish its dotless letter: better than all capitals, worse than a
    cased transcript.
    """
    if text != text.upper() or text == text.lower():
        return text
    lower = text.lower()
    first = next(index for index, letter in enumerate(lower) if letter.isalpha())
    return lower[:first] + lower[first].upper() + lower[first + 1 :]


def capitalize_english_i(text: str) -> str:
    """Write the English pronoun in upper case, alone or in i'm, i've, i'll, i'd; for English text only."""
    return _ENGLISH_I.sub("I", text)


_RULES: Final[Mapping[CleaningRule, Callable[[str], str]]] = {
    "unicode_nfc": compose,
    "whitespace": unify_whitespace,
    "drop_invisible": drop_invisible,
    "straight_quotes": straighten_quotes,
    "drop_markup": drop_markup,
    "sentence_case": to_sentence_case,
    "english_i": capitalize_english_i,
}
