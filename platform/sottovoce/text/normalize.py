"""Normalize transcripts before they are compared, by a named normalizer."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from sottovoce.text.marks import close_gaps, keep_marks

LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "km", "my", "yue"})
"""ISO 639-1 codes of languages written without spaces between words: those that openai-whisper lists, and Khmer."""


Normalizer: TypeAlias = Literal["auto", "english", "basic", "marks", "pointed", "unspaced", "none"]
"""auto: by the language of each text, as text/scoring_table.py says; english: Whisper's for English (case, punctuation,
fillers, numbers, contractions); basic: Whisper's for all other languages (case, punctuation, symbols; it cuts words at
combining marks); marks: as basic, but marks that spell stay; pointed: as marks, for Yiddish, which spells with points;
unspaced: as marks, without the spaces of languages that put none between words; none: white space only."""

Rules: TypeAlias = Normalizer | Literal["basic, split letters"]
"""The normalizers, and the one that Whisper's authors scored languages without spaces by."""


def normalize(text: str, normalizer: Rules, *, spelling: Mapping[str, str] | None = None) -> str:
    """Normalize a transcript.

    Args:
        text: any text.
        normalizer: name of the rules; auto, without a language to follow, is marks.
        spelling: British to American spellings for the English normalizer, from ``read_spelling``; None for no
            replacement.

    Source: of english and basic, Radford et al. 2022, appendix C, as transformers implements it; of the others,
    ``keep_marks``.
    """
    return build_normalizer(normalizer, spelling)(text)


def build_normalizer(normalizer: Rules, spelling: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return the function of a normalizer, to apply it to many texts."""
    rules = _load_rules(normalizer, tuple(sorted((spelling or {}).items())))
    return lambda text: " ".join(rules(text).split())


def read_spelling(folder: Path) -> dict[str, str]:
    """Read the spellings in a tokenizer folder's ``normalizer.json``; empty if there is no such file."""
    path = folder / "normalizer.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


@cache
def _load_rules(normalizer: Rules, spelling: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    own = _OWN.get(normalizer)
    if own is not None:
        return own
    # Imported here: transformers imports torch if it is installed, and this module needs no torch.
    from transformers.models.whisper import english_normalizer

    if normalizer != "english":
        split = normalizer == "basic, split letters"
        basic: Callable[[str], str] = english_normalizer.BasicTextNormalizer(split_letters=split)
        return basic
    build_english: Callable[[dict[str, str]], Callable[[str], str]] = english_normalizer.EnglishTextNormalizer
    return build_english(dict(spelling))


def _point(text: str) -> str:
    return keep_marks(text, pointed=True)


def _close(text: str) -> str:
    return close_gaps(keep_marks(text))


_OWN: Mapping[Rules, Callable[[str], str]] = {
    "none": str,
    "auto": keep_marks,
    "marks": keep_marks,
    "pointed": _point,
    "unspaced": _close,
}
