"""Turn scored utterances into the rows of a page: pieces of the alignment to colour, and values to filter by."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sottovoce.report.errors.sound import Sound
from sottovoce.scores.scored import ScoredUtterance
from sottovoce.text.alignment import AlignedSpan, AlignmentKind
from sottovoce.text.scoring_table import scoring_of, written_language

Unit: TypeAlias = Literal["words", "characters"]

_NOT_NAMED = "(not named)"  # the choice of utterances without speaker or corpus
_DOTTED_CIRCLE = "\u25cc"  # carries a mark whose letter is in the piece before


@dataclass(frozen=True)
class Piece:
    """A piece of an alignment that is coloured as one: a run of equal, missing or added units, or one substitution."""

    kind: AlignmentKind
    reference: str
    hypothesis: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One utterance of a page."""

    rank: int
    """1 for the worst utterance of all pages."""
    scored: ScoredUtterance
    language: str
    """ISO 639-1 code of the text."""
    unit: Unit
    """What the errors are counted in: words or characters."""
    pieces: tuple[Piece, ...]
    separator: str
    """Between pieces."""
    counts: dict[AlignmentKind, int]
    """Substituted, deleted and inserted units."""
    kinds: str
    """Names of the filters that keep it, with spaces between."""
    sound: Sound | None
    """None where the page leaves it out."""


@dataclass(frozen=True)
class Choices:
    """The names that one filter offers, and which of them each row has."""

    names: tuple[tuple[str, int], ...]
    """Each with its number of rows, in order of name."""
    indices: tuple[int, ...]
    """Of each row's name in ``names``."""


def badness(scored: ScoredUtterance) -> float:
    """Return what utterances are ranked by: errors over the square root of the reference's length.

    It is the geometric mean of the number of errors and the error rate. So neither long utterances with a few errors
    come first, nor those of one wrong word.
    """
    return scored.num_errors / math.sqrt(max(1, scored.num_words))


def rank(scored: Sequence[ScoredUtterance]) -> list[ScoredUtterance]:
    """Sort utterances by ``badness``, the worst first; equal ones by id."""
    return sorted(scored, key=lambda one: (-badness(one), one.utterance.id))


def build_row(scored: ScoredUtterance, sound: Sound | None, *, number: int) -> Row:
    """Prepare one utterance for the page.

    Args:
        scored: the utterance.
        sound: its sound.
        number: its rank among all utterances.
    """
    unit = unit_of(scored)
    by_character = unit == "characters"
    counts = count_errors([scored])
    return Row(
        rank=number,
        scored=scored,
        language=written_language(scored.utterance),
        unit=unit,
        pieces=tuple(piece for span in scored.alignment for piece in _cut(span, by_character=by_character)),
        separator="" if by_character else " ",
        counts=counts,
        kinds=" ".join(_kinds(scored, counts)),
        sound=sound,
    )


def unit_of(scored: ScoredUtterance) -> Unit:
    """Return what an utterance's errors are counted in, by the headline metric of its language."""
    return "characters" if scoring_of(written_language(scored.utterance)).headline == "cer" else "words"


def count_errors(scored: Sequence[ScoredUtterance]) -> dict[AlignmentKind, int]:
    """Return the number of substituted, deleted and inserted units of all utterances."""
    counts: dict[AlignmentKind, int] = {"substitute": 0, "delete": 0, "insert": 0}
    for one in scored:
        for span in one.alignment:
            if span.kind != "equal":
                counts[span.kind] += span.num_errors
    return counts


def list_choices(names: Sequence[str | None]) -> Choices:
    """Return what a filter by name offers; no name is a choice, too, and comes last."""
    ordered = sorted(Counter(names).items(), key=lambda item: (item[0] is None, item[0] or ""))
    index_of = {name: index for index, (name, _) in enumerate(ordered)}
    return Choices(
        names=tuple((_NOT_NAMED if name is None else name, number) for name, number in ordered),
        indices=tuple(index_of[name] for name in names),
    )


def _kinds(scored: ScoredUtterance, counts: dict[AlignmentKind, int]) -> Iterator[str]:
    yield from (kind for kind, number in counts.items() if number)
    yield "wrong" if scored.num_errors else "right"
    if scored.num_errors and not scored.normalized_hypothesis:
        yield "missed"
    if scored.num_errors and not scored.normalized_reference:
        yield "invented"


def _cut(span: AlignedSpan, *, by_character: bool) -> Iterator[Piece]:
    """Cut substitutions into pairs, so that what was said stands above what was recognized."""
    if span.kind == "substitute":
        pairs = zip(span.reference, span.hypothesis, strict=True)
        yield from (Piece(span.kind, _visible(said), _visible(written)) for said, written in pairs)
        return
    separator = "" if by_character else " "
    reference, hypothesis = separator.join(span.reference), separator.join(span.hypothesis)
    if span.kind != "equal":
        reference, hypothesis = _visible(reference), _visible(hypothesis)
    yield Piece(span.kind, _carry(reference), _carry(hypothesis))


def _visible(text: str) -> str:
    """Return a text that can be seen: a space by itself, and a mark without its letter, have no width."""
    return "\u2423" if text == " " else _carry(text)


def _carry(text: str) -> str:
    return _DOTTED_CIRCLE + text if unicodedata.category(text[:1] or " ").startswith("M") else text
