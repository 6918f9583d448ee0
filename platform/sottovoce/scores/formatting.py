"""How a model writes: casing, punctuation, and digits against words."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sottovoce.schema import Record
from sottovoce.scores.scored import ScoredUtterance, is_scored_by_character
from sottovoce.text.alignment import align_words

_LARGEST_DRIFT, _LARGEST_RATIO = 0.01, 2.0  # of the share of digits (guesses, untested)


class Formatting(Record):
    """Errors of casing and punctuation, and the share of digits. Rates are fractions."""

    num_cased: int
    """Words, or characters, recognized right but for their casing, in scripts with capitals."""
    num_casing_errors: int
    num_marks: int
    """Punctuation between words, in the reference, the hypothesis or both."""
    num_mark_errors: int
    reference_digits: float
    """Share of digits among the letters and digits of the references."""
    hypothesis_digits: float

    @property
    def casing_error_rate(self) -> float | None:
        """Of the words that are right but for casing; None in scripts without capitals."""
        return self.num_casing_errors / self.num_cased if self.num_cased else None

    @property
    def punctuation_error_rate(self) -> float | None:
        """Wrong, missing and additional punctuation over all of it; None where neither side has any."""
        return self.num_mark_errors / self.num_marks if self.num_marks else None

    @property
    def drift(self) -> str | None:
        """A warning where one side writes digits and the other words; None where both write alike."""
        said, written = self.reference_digits, self.hypothesis_digits
        if not differ_in_digits(said, written):
            return None
        which = "the model writes words" if written < said else "the model writes digits"
        shares = (
            f"digits are {said:.1%} of the letters and digits of the references and {written:.1%} of the hypotheses'"
        )
        remedy = "write numbers in one way in training and test texts, or part of these errors is spelling"
        return f"{shares}: {which} where the references do not; {remedy}"


def differ_in_digits(share: float, other: float) -> bool:
    """Whether two shares of digits are so different that numbers are written in two ways."""
    low, high = sorted((share, other))
    return high - low > _LARGEST_DRIFT and high > _LARGEST_RATIO * low


@dataclass(frozen=True)
class Written:
    """A text as its units and the punctuation after each."""

    units: tuple[str, ...]
    marks: tuple[str, ...]
    """One more than units: before the first, and after each."""


def measure_formatting(scored: Iterable[ScoredUtterance]) -> Formatting:
    """Compare how references and hypotheses are written.

    Units are aligned without case and punctuation. Casing is compared where they are the same, punctuation where they
    are aligned, and that beside missing or additional units counts as missing or additional.

    Source: of the punctuation error rate, Meister et al. 2023, "LibriSpeech-PC: Benchmark for Evaluation of Punctuation
    and Capitalization Capabilities of end-to-end ASR Models", section 3.
    """
    totals = [0, 0, 0, 0]
    references: list[str] = []
    hypotheses: list[str] = []
    for one in scored:
        references.append(one.utterance.text)
        hypotheses.append(one.hypothesis)
        by_character = is_scored_by_character(one.utterance)
        counts = _compare(one.utterance.text, one.hypothesis, by_character=by_character)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return Formatting(
        num_cased=totals[0],
        num_casing_errors=totals[1],
        num_marks=totals[2],
        num_mark_errors=totals[3],
        reference_digits=share_of_digits(references),
        hypothesis_digits=share_of_digits(hypotheses),
    )


def share_of_digits(texts: Iterable[str]) -> float:
    """Return the share of digits, of any script, among the letters and digits of texts."""
    num_digits = num_all = 0
    for text in texts:
        num_digits += sum(letter.isdigit() for letter in text)
        num_all += sum(letter.isalnum() for letter in text)
    return num_digits / max(1, num_all)


def parse_written(text: str, *, by_character: bool) -> Written:
    """Divide a text; punctuation inside a word, as in ``don't``, belongs to the word."""
    units: list[str] = []
    marks = [""]
    for piece in text if by_character else text.split():
        first = next((index for index, letter in enumerate(piece) if not _is_mark(letter)), len(piece))
        last = next((index for index in range(len(piece), first, -1) if not _is_mark(piece[index - 1])), first)
        marks[-1] += piece[:first].strip()
        if piece[first:last].strip():
            units.append(piece[first:last])
            marks.append(piece[last:])
    return Written(tuple(units), tuple(marks))


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter).startswith("P")


def _compare(text: str, hypothesis_text: str, *, by_character: bool) -> tuple[int, int, int, int]:
    """Return cased units, casing errors, marks and mark errors."""
    said, written = (parse_written(one, by_character=by_character) for one in (text, hypothesis_text))
    joint = "" if by_character else " "
    reference, hypothesis = (joint.join(map(_fold, one.units)) for one in (said, written))
    num_cased = num_casing_errors = 0
    pairs: list[tuple[str, str]] = [(said.marks[0], written.marks[0])]
    at = heard_at = 0
    for span in align_words(reference, hypothesis, by_character=by_character):
        num_said, num_heard = len(span.reference), len(span.hypothesis)
        if span.kind == "equal":
            casing = _casing(said.units[at : at + num_said], written.units[heard_at : heard_at + num_heard])
            num_cased, num_casing_errors = num_cased + len(casing), num_casing_errors + sum(casing)
        for offset in range(max(num_said, num_heard)):
            ours = said.marks[at + offset + 1] if offset < num_said else ""
            theirs = written.marks[heard_at + offset + 1] if offset < num_heard else ""
            pairs.append((ours, theirs))
        at, heard_at = at + num_said, heard_at + num_heard
    num_marks, num_mark_errors = sum(any(pair) for pair in pairs), sum(ours != theirs for ours, theirs in pairs)
    return num_cased, num_casing_errors, num_marks, num_mark_errors


def _fold(unit: str) -> str:
    """Return a unit without case; one character stays one, so that units and alignment keep the same places."""
    folded = unit.casefold()
    return folded if len(unit) > 1 or len(folded) == 1 else unit


def _casing(said: Sequence[str], written: Sequence[str]) -> list[bool]:
    """Return, of each pair of equal units with a letter that has case, whether their casing differs."""
    pairs = zip(said, written, strict=True)
    return [ours != theirs for ours, theirs in pairs if ours.lower() != ours.upper()]
