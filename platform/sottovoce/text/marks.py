"""Normalize text of any script without losing the marks that spell: vowel signs, viramas, tone marks, accents.

Whisper's own normalizer puts a space in the place of every combining mark that is no part of a composed letter, and so
cuts words of most scripts of Asia and Africa to pieces that no longer say what was written.

Sources: Unicode Standard 16, chapters 9 and 12 (marks and joiners of each script), and annex 15 (normal forms).
"""

import re
import unicodedata
from typing import Final

_ZWNJ, _ZWJ = "\u200c", "\u200d"

_OPTIONAL: Final = re.compile(
    "["
    "\u0483-\u0489"  # Church Slavonic
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew points and accents
    "\u055b\u055c\u055e\u055f"  # Armenian: written above a vowel inside the word, as are the marks of a question
    "\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u08d3-\u08ff"
    "\u0951-\u0954\u1cd0-\u1cfa\ua8e0-\ua8f1"  # Vedic accents
    "\u135d-\u135f"  # Ethiopic length
    "\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"  # without a shape, or choosing one
    "]"
)
"""Marks that ordinary spelling leaves out, among them Arabic harakat and tatweel, and Hebrew niqqud."""

_YIDDISH = frozenset("\u05b4\u05b7\u05b8\u05bc\u05bf\u05c2")  # of the marks above, those that Yiddish spells with
_YIDDISH_PAIRS = str.maketrans({"\u05f0": "\u05d5\u05d5", "\u05f1": "\u05d5\u05d9", "\u05f2": "\u05d9\u05d9"})

_SHARED: Final = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")
"""Marks of no script: they spell after a letter, and belong to symbols elsewhere."""

_STRESS = frozenset("\u0300\u0301")  # in Cyrillic; where they spell, as in U+0453, U+045D, they are composed

# Letters that are written by the apostrophe's key as often: Ukrainian, Uzbek, Hawaiian.
_APOSTROPHES = frozenset("\u02b9\u02bb\u02bc\u02bd\u02bf\ua78c")

# One spelling that has two encodings, which Unicode's normal forms leave apart.
_SAME: Final = (
    (re.compile("i\u0307"), "i"),  # what lower-casing leaves of the Turkish capital
    (re.compile("\u0e40\u0e40"), "\u0e41"),  # Thai sara ae, typed as two sara e
    (re.compile("\u0ec0\u0ec0"), "\u0ec1"),  # Lao
    (re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\u0e33"),  # Thai sara am: NFKC takes it apart,
    (re.compile("([\u0e48-\u0e4b])\u0e4d\u0e32"), "\\1\u0e33"),  # and a tone mark comes before or after
    (re.compile("\u0ecd([\u0ec8-\u0ecb]?)\u0eb2"), "\\1\u0eb3"),  # Lao
    (re.compile("([\u0ec8-\u0ecb])\u0ecd\u0eb2"), "\\1\u0eb3"),
    (re.compile("\u0930\u094d\u200d"), "\u0931\u094d"),  # Marathi and Nepali half ra
    (re.compile("\u09a4\u09cd\u200d"), "\u09ce"),  # Bengali final ta
    (re.compile("\u09b0\u200c\u09cd"), "\u09b0\u200d\u09cd"),  # Bengali ra before ya
    (re.compile("\u0d23\u0d4d\u200d"), "\u0d7a"),  # Malayalam final consonants
    (re.compile("\u0d28\u0d4d\u200d"), "\u0d7b"),
    (re.compile("\u0d30\u0d4d\u200d"), "\u0d7c"),
    (re.compile("\u0d32\u0d4d\u200d"), "\u0d7d"),
    (re.compile("\u0d33\u0d4d\u200d"), "\u0d7e"),
    (re.compile("\u0d15\u0d4d\u200d"), "\u0d7f"),
)

# ZWNJ between Arabic letters of which the first would join the next: the others look the same without it.
_ARABIC = "\u0600-\u06ff\u0750-\u077f"
_JOINS_NOTHING = (
    "\u0621-\u0625\u0627\u0629\u062f-\u0632\u0648\u0671\u0688\u0689\u0691\u0693\u0696\u0698\u06c0\u06c6\u06c7"
)
# ZWJ after the Sinhala al-lakuna, and between ra and virama in Bengali and Kannada. Elsewhere in scripts of India a
# joiner chooses the shape of a conjunct, not another reading.
_SPELLING_JOINER = (
    f"(?:(?<=[{_ARABIC}])(?<![{_JOINS_NOTHING}]){_ZWNJ}(?=[{_ARABIC}])"
    f"|(?<=\u0dca){_ZWJ}|(?<=\u09b0){_ZWJ}(?=\u09cd)|(?<=\u0cb0){_ZWJ}(?=\u0ccd))"
)
_JOINERS = re.compile(f"({_SPELLING_JOINER})|[{_ZWNJ}{_ZWJ}]+")
_REPEATED = re.compile(f"([{_ZWNJ}{_ZWJ}])[{_ZWNJ}{_ZWJ}]+")

# As in Whisper's normalizer, so that the two differ in marks alone.
_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]|\(([^)]+?)\)")

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
_UNSPACED_GAP = re.compile(rf"(?<=[{_UNSPACED}])\s+|\s+(?=[{_UNSPACED}])")


def keep_marks(text: str, *, pointed: bool = False) -> str:
    """Lower-case text, unify its code points (NFKC), and put spaces for punctuation and symbols; keep what spells.

    Combining marks stay, and so do the joiners that change what is read. Removed are marks that ordinary spelling
    leaves out: Arabic harakat and tatweel, Hebrew niqqud, Cyrillic stress, Vedic accents, Ethiopic length; Armenian
    marks of questions and exclamations, which stand inside words; variation selectors; and invisible characters.

    Args:
        text: of any script.
        pointed: keep the points with which Yiddish spells, and write its letter pairs as two letters.
    """
    text = unicodedata.normalize("NFKC", _BRACKETS.sub("", text.lower())).lower()
    for encoding, other in _SAME:
        text = encoding.sub(other, text)
    if pointed:
        text = text.translate(_YIDDISH_PAIRS)
    kept: list[str] = []
    base = ""
    for char in text:
        kept.append(_replace(char, base, pointed=pointed))
        if unicodedata.category(char)[0] != "M":
            base = char
    joined = _JOINERS.sub(r"\1", _REPEATED.sub(r"\1", "".join(kept)))
    return unicodedata.normalize("NFC", joined)


def close_gaps(text: str) -> str:
    """Remove white space beside letters of scripts that put none between words; between other words it stays.

    There a space stands for a breath, a comma or nothing, and two writers seldom agree on it.
    """
    return _UNSPACED_GAP.sub("", text)


def _replace(char: str, base: str, *, pointed: bool) -> str:
    """Return what remains of a character: itself, a space or nothing.

    Args:
        char: one code point.
        base: the last one before it that is no mark; empty at the start.
        pointed: see ``keep_marks``.
    """
    if _OPTIONAL.match(char):
        return char if pointed and char in _YIDDISH else ""
    category = unicodedata.category(char)
    if category[0] == "M":
        return char if _spells(char, base, category) else ""
    if category == "Cf":
        return char if char in (_ZWNJ, _ZWJ) else ""
    return " " if category[0] in "SP" or char in _APOSTROPHES else char


def _spells(mark: str, base: str, category: str) -> bool:
    """Whether a mark that is not optional everywhere spells after a letter."""
    if mark == "\u0670":  # the small alef spells on the Urdu letter alone
        return base == "\u06cc"
    if mark in _STRESS and "\u0400" <= base <= "\u052f":
        return False
    return category != "Me" and (not _SHARED.match(mark) or base.isalpha())
