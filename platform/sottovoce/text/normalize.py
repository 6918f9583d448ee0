"""Bring transcripts to a common form before they are compared, by a normalizer with a name."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""ISO 639-1 codes of languages written without spaces between words, as openai-whisper lists them."""


Normalizer: TypeAlias = Literal["english", "basic", "none"]
"""english: Whisper's for English (case, punctuation, fillers, numbers, contractions); basic: Whisper's for all other
languages (case, punctuation, symbols); none: only white space is unified."""


def normalize(text: str, normalizer: Normalizer, *, spelling: Mapping[str, str] | None = None) -> str:
    """Normalize a transcript.

    Args:
        text: any text.
        normalizer: which rules.
        spelling: British to American spellings for the English normalizer, from ``read_spelling``; none when None.

    Source: Radford et al. 2022, appendix C, as transformers implements it.
    """
    return build_normalizer(normalizer, spelling)(text)


def build_normalizer(normalizer: Normalizer, spelling: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Give the function behind a normalizer's name, to use it on many texts."""
    rules = _load_rules(normalizer, tuple(sorted((spelling or {}).items())))
    return lambda text: " ".join(rules(text).split())


def read_spelling(folder: Path) -> dict[str, str]:
    """Read the spellings a tokenizer's folder carries in ``normalizer.json``; empty where it carries none."""
    path = folder / "normalizer.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


@cache
def _load_rules(normalizer: Normalizer, spelling: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    if normalizer == "none":
        return str
    # Imported here: transformers loads torch where it finds it, and this layer works without.
    from transformers.models.whisper import english_normalizer

    if normalizer == "basic":
        basic: Callable[[str], str] = english_normalizer.BasicTextNormalizer()
        return basic
    build_english: Callable[[dict[str, str]], Callable[[str], str]] = english_normalizer.EnglishTextNormalizer
    return build_english(dict(spelling))
