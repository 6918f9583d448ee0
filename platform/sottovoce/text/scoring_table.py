"""The one table of how each language is scored: by which normalizer, and by which rate first.

Whisper's own normalizers, ``english`` and ``basic``, are what published results were scored by; ``published_rule``
says how, so that both figures can stand side by side.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sottovoce.schema import Utterance
from sottovoce.text.languages import LANGUAGES
from sottovoce.text.normalize import LANGUAGES_WITHOUT_SPACES, Normalizer, Rules

Headline: TypeAlias = Literal["wer", "cer"]
"""The rate that is quoted first, and that chooses between models."""


@dataclass(frozen=True)
class Scoring:
    """How one language is scored."""

    normalizer: Rules
    headline: Headline


_OTHERS: Final = Scoring("marks", "wer")
_EXCEPTIONS: Final[Mapping[str, Scoring]] = {
    "en": Scoring("english", "wer"),
    "yi": Scoring("pointed", "wer"),
    **{code: Scoring("unspaced", "cer") for code in LANGUAGES_WITHOUT_SPACES},
}

SCORING: Final[Mapping[str, Scoring]] = {code: _EXCEPTIONS.get(code, _OTHERS) for code in LANGUAGES}
"""How each of Whisper's languages is scored where nobody chose a normalizer. A Tibetan word here is a syllable:
Tibetan writes a mark between syllables, and none between words."""

_SPACED_BY_WHISPER = frozenset({"km"})  # published word error rates of Khmer are over runs without a space


def scoring_of(language: str) -> Scoring:
    """Return how a language is scored; one that is not Whisper's as most are.

    Args:
        language: ISO 639-1 code of the text, not of the speech.
    """
    return SCORING.get(language, _OTHERS)


def written_language(utterance: Utterance) -> str:
    """Return the language of an utterance's text: a translation is English, whatever was spoken."""
    return "en" if utterance.task == "translate" else utterance.language


def normalizer_for(utterance: Utterance, normalizer: Normalizer) -> Rules:
    """Return the rules for one text.

    ``auto`` follows the table. ``english`` is for English alone, and ``basic`` is Whisper's for the others.
    """
    language = written_language(utterance)
    if normalizer == "auto":
        return scoring_of(language).normalizer
    return "basic" if normalizer == "english" and language != "en" else normalizer


def headline_metric(utterances: Iterable[Utterance]) -> Headline:
    """Return the rate to quote first: cer where no language puts spaces between words, else wer."""
    headlines = {scoring_of(written_language(one)).headline for one in utterances}
    return "cer" if headlines == {"cer"} else "wer"


def published_rule(utterance: Utterance) -> Rules:
    """Return the rules, before words are counted, by which Whisper's authors scored a language.

    Source: Radford et al. 2022, appendix C: for languages without spaces each letter is a word of its own.
    """
    language = written_language(utterance)
    if language == "en":
        return "english"
    is_split = scoring_of(language).headline == "cer" and language not in _SPACED_BY_WHISPER
    return "basic, split letters" if is_split else "basic"
