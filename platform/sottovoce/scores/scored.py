"""One scored utterance: what was said, what was recognized, and how the two align."""

from collections.abc import Mapping
from dataclasses import dataclass

from sottovoce.recognize.scoring import RecognizerScore
from sottovoce.schema import Utterance
from sottovoce.text.alignment import AlignedSpan, align_words
from sottovoce.text.group_score import normalize_pairs
from sottovoce.text.normalize import Normalizer
from sottovoce.text.scoring_table import headline_metric


@dataclass(frozen=True, kw_only=True)
class ScoredUtterance:
    """An utterance with its hypothesis and their alignment, in the units of its language's headline metric."""

    utterance: Utterance
    hypothesis: str
    """As recognized."""
    normalized_reference: str
    normalized_hypothesis: str
    alignment: tuple[AlignedSpan, ...]
    """Of the normalized texts: words, or characters where the language's headline metric is CER."""
    snr_db: float | None
    """Speech level over background level; None where the recording has too little of either."""

    @property
    def num_errors(self) -> int:
        """Substituted, deleted and inserted words or characters."""
        return sum(span.num_errors for span in self.alignment)

    @property
    def num_words(self) -> int:
        """Words or characters of the normalized reference."""
        return sum(len(span.reference) for span in self.alignment)

    @property
    def error_rate(self) -> float:
        """Errors over words, a fraction; the number of errors itself where the reference is empty."""
        return self.num_errors / max(1, self.num_words)

    @property
    def said(self) -> tuple[str, ...]:
        """The units of the normalized reference: words or characters."""
        return tuple(unit for span in self.alignment for unit in span.reference)

    @property
    def recognized(self) -> tuple[str, ...]:
        """The units of the normalized hypothesis: words or characters."""
        return tuple(unit for span in self.alignment for unit in span.hypothesis)


def is_scored_by_character(utterance: Utterance) -> bool:
    """Whether the units of an utterance's alignment are characters, because its language puts no spaces."""
    return headline_metric([utterance]) == "cer"


def align_score(
    result: RecognizerScore, *, normalizer: Normalizer, spelling: Mapping[str, str] | None = None
) -> tuple[ScoredUtterance, ...]:
    """Align every hypothesis of a score with its reference.

    Args:
        result: the score.
        normalizer: of both texts; that of the score.
        spelling: see ``normalize``.
    """
    hypotheses = list(result.hypotheses.values())
    normalized = normalize_pairs(result.utterances, hypotheses, normalizer=normalizer, spelling=spelling)
    return tuple(
        ScoredUtterance(
            utterance=utterance,
            hypothesis=hypothesis,
            normalized_reference=reference,
            normalized_hypothesis=heard,
            alignment=align_words(reference, heard, by_character=is_scored_by_character(utterance)),
            snr_db=result.snrs_db.get(utterance.id),
        )
        for utterance, hypothesis, (reference, heard) in zip(result.utterances, hypotheses, normalized, strict=True)
    )
