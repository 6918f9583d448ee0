"""What a model gets wrong: words invented where nobody speaks, loops, substitutions, and terms of the domain."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from sottovoce.schema import Record
from sottovoce.scores.formatting import parse_written
from sottovoce.scores.scored import ScoredUtterance, is_scored_by_character
from sottovoce.text.normalize import Normalizer, build_normalizer
from sottovoce.text.scoring_table import normalizer_for

Units: TypeAlias = tuple[str, ...]
"""Words, or characters where a language is scored by them."""

NUM_LISTED = 20
_LONGEST_PHRASE = 16  # units
_FEWEST_TIMES, _FEWEST_UNITS = 4, 8  # people say "no, no, no" and "very, very" (guess, untested)
_FEWEST_TOKENS = 3
_RARE_SHARE = 0.1  # of the words, those with the most tokens: in many languages most words are several tokens


class Invented(Record):
    """Words written in recordings in which nobody speaks."""

    name: str
    """all, or a column and its value."""
    num_utterances: int
    num_with_words: int
    """Utterances with any word."""
    minutes: float
    num_words: int
    """Characters in languages that are scored by them."""

    @property
    def words_per_minute(self) -> float:
        """Invented words in a minute of audio."""
        return self.num_words / max(self.minutes, 1e-9)


class Loop(Record):
    """A phrase that a hypothesis repeats, more often than it was said."""

    id: str
    """Of the utterance."""
    phrase: str
    num_times: int


class Substitution(Record):
    """One word or character that was recognized as another."""

    reference: str
    hypothesis: str
    count: int


class TermRecall(Record):
    """How often a term was said, and how often it was recognized."""

    term: str
    """As in the references, normalized."""
    num_said: int
    num_recognized: int


def count_invented(scored: Iterable[ScoredUtterance], columns: Mapping[str, Mapping[str, str]]) -> tuple[Invented, ...]:
    """Count the words in recordings whose reference is empty, in all and by the value of each column."""
    silent = [one for one in scored if not one.normalized_reference]
    groups: dict[str, list[ScoredUtterance]] = {"all": silent} if silent else {}
    for column, values in columns.items():
        for one in silent:
            groups.setdefault(f"{column} {values.get(one.utterance.id, '(none)')}", []).append(one)
    return tuple(
        Invented(
            name=name,
            num_utterances=len(members),
            num_with_words=sum(one.num_errors > 0 for one in members),
            minutes=sum(one.utterance.duration_s for one in members) / 60,
            num_words=sum(one.num_errors for one in members),
        )
        for name, members in groups.items()
    )


def find_loops(scored: Iterable[ScoredUtterance]) -> tuple[Loop, ...]:
    """Return the hypotheses that repeat a phrase more often than the reference does; the longest repetition of each."""
    found = ((one, _longest_repetition(one.recognized)) for one in scored)
    return tuple(
        Loop(id=one.utterance.id, phrase=_joined(phrase, one), num_times=num_times)
        for one, (phrase, num_times) in found
        if phrase and _times_in_a_row(one.said, phrase) < num_times
    )


def count_substitutions(scored: Iterable[ScoredUtterance]) -> tuple[Substitution, ...]:
    """Return the substitutions that occur most, the most frequent first."""
    pairs = Counter(
        pair
        for one in scored
        for span in one.alignment
        if span.kind == "substitute"
        for pair in zip(span.reference, span.hypothesis, strict=True)
    )
    return tuple(Substitution(reference=r, hypothesis=h, count=n) for (r, h), n in pairs.most_common(NUM_LISTED))


def find_rare_words(scored: Sequence[ScoredUtterance], count_tokens: Callable[[str], int]) -> list[str]:
    """Return the words of the references that the tokenizer cuts into the most pieces: it was made without them.

    Languages written without spaces have none, for their words cannot be told apart.

    Args:
        scored: all utterances.
        count_tokens: returns the number of tokens of a text.

    Returns:
        As written in the references; the tenth of all words with the most tokens, each with three or more.
    """
    words = {
        word
        for one in scored
        if not is_scored_by_character(one.utterance)
        for word in parse_written(one.utterance.text, by_character=False).units
    }
    tokens = {word: count_tokens(f" {word}") for word in words if not any(letter.isdigit() for letter in word)}
    ranked = sorted(tokens, key=lambda word: (-tokens[word], word))
    return [word for word in ranked[: round(_RARE_SHARE * len(ranked))] if tokens[word] >= _FEWEST_TOKENS]


def recall_terms(
    scored: Iterable[ScoredUtterance],
    terms: Iterable[str],
    *,
    normalizer: Normalizer,
    spelling: Mapping[str, str] | None = None,
) -> tuple[TermRecall, ...]:
    """Count how often terms were said and recognized; a term of several words counts if all of them are right.

    Args:
        scored: all utterances.
        terms: words or phrases, in any spelling that the normalizer makes alike.
        normalizer: that the utterances were scored by.
        spelling: see ``normalize``.

    Returns:
        The terms that were said, those that were missed most first.
    """
    terms = list(dict.fromkeys(terms))
    said: Counter[str] = Counter()
    recognized: Counter[str] = Counter()
    for one in scored:
        normalize = build_normalizer(normalizer_for(one.utterance, normalizer), spelling)
        by_character = is_scored_by_character(one.utterance)
        units = one.said
        is_right = [span.kind == "equal" for span in one.alignment for _ in span.reference]
        for term in dict.fromkeys(normalize(term) for term in terms):
            wanted = tuple(term if by_character else term.split())
            for start in _find(units, wanted):
                said[term] += 1
                recognized[term] += all(is_right[start : start + len(wanted)])
    recalls = [TermRecall(term=term, num_said=said[term], num_recognized=recognized[term]) for term in said]
    return tuple(sorted(recalls, key=lambda one: (one.num_recognized - one.num_said, -one.num_said, one.term)))


def _find(units: Units, wanted: Units) -> list[int]:
    """Return where a phrase begins in a text."""
    if not wanted:
        return []
    starts = (index for index, unit in enumerate(units) if unit == wanted[0])
    return [start for start in starts if units[start : start + len(wanted)] == wanted]


def _longest_repetition(units: Units) -> tuple[Units, int]:
    """Return the phrase whose repetition takes most of a text, and how often it comes in a row; () for no loop.

    The decoder's own rule, ``decoding/loops.py``, looks at tokens while they are generated.
    """
    best: tuple[int, Units, int] = (0, (), 0)
    for length in range(1, min(_LONGEST_PHRASE, len(units) // _FEWEST_TIMES) + 1):
        num_equal = 0
        for end in range(length, len(units)):
            num_equal = num_equal + 1 if units[end] == units[end - length] else 0
            num_times = num_equal // length + 1
            num_units = num_times * length
            if num_times >= _FEWEST_TIMES and num_units >= _FEWEST_UNITS and num_units > best[0]:
                best = num_units, units[end - length + 1 : end + 1], num_times
    return best[1], best[2]


def _times_in_a_row(units: Units, phrase: Units) -> int:
    """Return how often a phrase is repeated without a gap, at most."""
    most = 0
    for start in _find(units, phrase):
        times = 1
        while units[start + times * len(phrase) : start + (times + 1) * len(phrase)] == phrase:
            times += 1
        most = max(most, times)
    return most


def _joined(phrase: Units, one: ScoredUtterance) -> str:
    return ("" if is_scored_by_character(one.utterance) else " ").join(phrase)
