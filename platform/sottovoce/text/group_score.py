"""Scores of each corpus and each language, where there are several; every text by its own language's normalizer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sottovoce.schema import Record, Utterance
from sottovoce.text.normalize import Normalizer, build_normalizer
from sottovoce.text.score import Score, score_pairs

_UNNAMED = "unnamed"  # the corpus of utterances that name none


class GroupScore(Record):
    """How well one corpus or one language was recognized."""

    kind: Literal["corpus", "language"]
    name: str
    """The corpus's name, or the ISO 639-1 code of what was spoken."""
    num_utterances: int
    num_words: int
    """In the normalized references."""
    wer: float
    """Fraction."""
    wer_low: float
    """Lower end of the bootstrap 95 % interval."""
    wer_high: float
    cer: float
    normalizer: str
    """What ``wer`` and ``cer`` went through."""


@dataclass(frozen=True, kw_only=True)
class GroupedScore:
    """All utterances together, and their groups."""

    score: Score
    groups: tuple[GroupScore, ...]
    """Corpora where there are several, then languages where there are several, each by name."""


def score_utterances(
    utterances: Sequence[Utterance],
    hypotheses: Sequence[str],
    *,
    normalizer: Normalizer,
    seed: int = 0,
    spelling: Mapping[str, str] | None = None,
) -> GroupedScore:
    """Score what was recognized, overall and by corpus and language.

    Args:
        utterances: U, what was said.
        hypotheses: U texts that were recognized.
        normalizer: of both sides; texts that are not English go through ``basic`` where it is ``english``.
        seed: of the bootstrap.
        spelling: see ``normalize``.

    Raises:
        ValueError: different numbers of utterances and hypotheses.
    """
    rules = {name: build_normalizer(name, spelling) for name in {normalizer_for(one, normalizer) for one in utterances}}
    pairs, normalized = [], []
    for utterance, hypothesis in zip(utterances, hypotheses, strict=True):
        rule = rules[normalizer_for(utterance, normalizer)]
        pairs.append((utterance.text, hypothesis))
        normalized.append((rule(utterance.text), rule(hypothesis)))

    def score(places: Sequence[int]) -> Score:
        return score_pairs(
            [pairs[place] for place in places],
            [normalized[place] for place in places],
            normalizer=name_normalizer([utterances[place] for place in places], normalizer),
            seed=seed,
        )

    corpora, languages = (
        _places([one.corpus or _UNNAMED for one in utterances]),
        _places(o.language for o in utterances),
    )
    return GroupedScore(
        score=score(range(len(pairs))),
        groups=(
            *(_group("corpus", name, score(places)) for name, places in corpora.items() if len(corpora) > 1),
            *(_group("language", name, score(places)) for name, places in languages.items() if len(languages) > 1),
        ),
    )


def normalizer_for(utterance: Utterance, normalizer: Normalizer) -> Normalizer:
    """Give the normalizer of one text: the English one knows English only, which is what a translation is in."""
    is_english = utterance.language == "en" or utterance.task == "translate"
    return "basic" if normalizer == "english" and not is_english else normalizer


def name_normalizer(utterances: Iterable[Utterance], normalizer: Normalizer) -> str:
    """Say what the texts of several utterances went through."""
    used = {normalizer_for(utterance, normalizer) for utterance in utterances} or {normalizer}
    return used.pop() if len(used) == 1 else "english, basic elsewhere"


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Give each name's places, in the order of the names."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return dict(sorted(places.items()))


def _group(kind: Literal["corpus", "language"], name: str, score: Score) -> GroupScore:
    return GroupScore(
        kind=kind,
        name=name,
        num_utterances=score.num_utterances,
        num_words=score.wer.num_reference,
        wer=score.wer.rate,
        wer_low=score.wer.low,
        wer_high=score.wer.high,
        cer=score.cer.rate,
        normalizer=score.normalizer,
    )
