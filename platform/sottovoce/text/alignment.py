"""Align a hypothesis with its reference, word by word or character by character."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import jiwer

AlignmentKind: TypeAlias = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True)
class AlignedSpan:
    """A run of neighbouring units (words or characters) that share one kind of alignment."""

    kind: AlignmentKind
    reference: tuple[str, ...]
    """Units of the reference; empty for an insertion."""
    hypothesis: tuple[str, ...]
    """Units of the hypothesis; empty for a deletion, and as many as ``reference`` for a substitution."""

    @property
    def num_errors(self) -> int:
        """Substituted, deleted or inserted units."""
        return 0 if self.kind == "equal" else max(len(self.reference), len(self.hypothesis))


def align_words(reference: str, hypothesis: str, *, by_character: bool = False) -> tuple[AlignedSpan, ...]:
    """Align two texts with the fewest errors; where several alignments have as few, jiwer mostly substitutes.

    The units are those of ``count_words`` and ``count_characters``, so the errors of the spans add up to their counts.

    Args:
        reference: what was said, normalized; it may be empty.
        hypothesis: what was recognized, normalized; it may be empty.
        by_character: whether the units are characters (code points, spaces included), for languages written without
            spaces between words.

    Returns:
        The spans in order; joined, they are both texts. None where both texts are empty.

    Source: jiwer's alignment, a path of least Levenshtein distance.
    """
    expected, heard = (" ".join(text.split()) for text in (reference, hypothesis))
    if not expected or not heard:  # jiwer refuses an empty reference
        return _align_with_nothing(_split(expected, by_character), _split(heard, by_character))
    output: jiwer.CharacterOutput | jiwer.WordOutput
    output = jiwer.process_characters(expected, heard) if by_character else jiwer.process_words(expected, heard)
    references, hypotheses = output.references[0], output.hypotheses[0]
    return tuple(
        AlignedSpan(
            kind=cast(AlignmentKind, chunk.type),
            reference=tuple(references[chunk.ref_start_idx : chunk.ref_end_idx]),
            hypothesis=tuple(hypotheses[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in output.alignments[0]
    )


def _split(text: str, by_character: bool) -> tuple[str, ...]:
    return tuple(text if by_character else text.split())


def _align_with_nothing(reference: tuple[str, ...], hypothesis: tuple[str, ...]) -> tuple[AlignedSpan, ...]:
    if reference:
        return (AlignedSpan("delete", reference, ()),)
    return (AlignedSpan("insert", (), hypothesis),) if hypothesis else ()
