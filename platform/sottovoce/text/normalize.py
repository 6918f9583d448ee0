"""Normalize transcripts before they are compared, by a named normalizer."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""ISO 639-1 codes of languages written without spaces between words, as openai-whisper lists them."""


Normalizer: TypeAlias = Literal["english", "basic", "none"]
"""english: Whisper's for English (case, punctuation, fillers, numbers, contractions); basic: Whisper's for all other
languages (case, punctuation, symbols); none: white space only."""


def normalize(text: str, normalizer: Normalizer, *, spelling: Mapping[str, str] | None = None) -> str:
    """Normalize a transcript.

    Args:
        text: any text.
        normalizer: name of the rules.
        spelling: British to American spellings for the English normalizer, from ``read_spelling``; None for no
            replacement.

    Source: Radford et al. 2022, appendix C, as transformers implements it.
    """
    return build_normalizer(normalizer, spelling)(text)


def build_normalizer(normalizer: Normalizer, spelling: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return the function of a normalizer, to apply it to many texts."""
    rules = _load_rules(normalizer, tuple(sorted((spelling or {}).items())))
    return lambda text: " ".join(rules(text).split())


def read_spelling(folder: Path) -> dict[str, str]:
    """Read the spellings in a tokenizer folder's ``normalizer.json``; empty if there is no such file."""
    path = folder / "normalizer.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


@cache
def _load_rules(normalizer: Normalizer, spelling: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    if normalizer == "none":
        return str
    # Imported here: transformers imports torch if it is installed, and this module needs no torch.
    from transformers.models.whisper import english_normalizer

    if normalizer == "basic":
        basic: Callable[[str], str] = english_normalizer.BasicTextNormalizer()
        return basic
    build_english: Callable[[dict[str, str]], Callable[[str], str]] = english_normalizer.EnglishTextNormalizer
    return build_english(dict(spelling))
