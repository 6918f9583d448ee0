"""Score utterances as a whole and by corpus and language; each text is normalized by the rules for its language."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sottovoce.schema import Record, Utterance
from sottovoce.text.normalize import Normalizer, build_normalizer
from sottovoce.text.score import Score, score_pairs

_UNNAMED = "unnamed"  # the corpus of utterances that name none


class GroupScore(Record):
    """Error rates of one corpus or one language."""

    kind: Literal["corpus", "language"]
    name: str
    """The corpus's name, or the ISO 639-1 code of the spoken language."""
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
    """The normalizer before ``wer`` and ``cer``."""


@dataclass(frozen=True, kw_only=True)
class GroupedScore:
    """The score of all utterances, and those of their groups."""

    score: Score
    groups: tuple[GroupScore, ...]
    """Corpora, if there are several, then languages, if there are several; each in order of name."""


def score_utterances(
    utterances: Sequence[Utterance],
    hypotheses: Sequence[str],
    *,
    normalizer: Normalizer,
    seed: int = 0,
    spelling: Mapping[str, str] | None = None,
) -> GroupedScore:
    """Score hypotheses over all utterances, and by corpus and language.

    Args:
        utterances: U, with their references.
        hypotheses: U recognized texts.
        normalizer: of both sides; texts that are not English are normalized by ``basic`` instead of ``english``.
        seed: of the bootstrap.
        spelling: see ``normalize``.

    Raises:
        ValueError: different numbers of utterances and hypotheses.
    """
    pairs = [(one.text, hypothesis) for one, hypothesis in zip(utterances, hypotheses, strict=True)]
    normalized = normalize_pairs(utterances, hypotheses, normalizer=normalizer, spelling=spelling)

    def score(indices: Sequence[int]) -> Score:
        return score_pairs(
            [pairs[index] for index in indices],
            [normalized[index] for index in indices],
            normalizer=name_normalizer([utterances[index] for index in indices], normalizer),
            seed=seed,
        )

    corpora = _indices_by_name(one.corpus or _UNNAMED for one in utterances)
    languages = _indices_by_name(one.language for one in utterances)
    return GroupedScore(
        score=score(range(len(pairs))),
        groups=(
            *(_group("corpus", name, score(indices)) for name, indices in corpora.items() if len(corpora) > 1),
            *(_group("language", name, score(indices)) for name, indices in languages.items() if len(languages) > 1),
        ),
    )


def normalize_pairs(
    utterances: Sequence[Utterance],
    hypotheses: Sequence[str],
    *,
    normalizer: Normalizer,
    spelling: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """Return U pairs of reference and hypothesis, each normalized for its language; see ``score_utterances``."""
    rules = {name: build_normalizer(name, spelling) for name in {normalizer_for(one, normalizer) for one in utterances}}
    normalized = []
    for utterance, hypothesis in zip(utterances, hypotheses, strict=True):
        rule = rules[normalizer_for(utterance, normalizer)]
        normalized.append((rule(utterance.text), rule(hypothesis)))
    return normalized


def normalizer_for(utterance: Utterance, normalizer: Normalizer) -> Normalizer:
    """Return the normalizer of one text: ``english`` is for English alone, which translations are in."""
    is_english = utterance.language == "en" or utterance.task == "translate"
    return "basic" if normalizer == "english" and not is_english else normalizer


def name_normalizer(utterances: Iterable[Utterance], normalizer: Normalizer) -> str:
    """Return the name of the normalization of several utterances."""
    used = {normalizer_for(utterance, normalizer) for utterance in utterances} or {normalizer}
    return used.pop() if len(used) == 1 else "english, basic elsewhere"


def _indices_by_name(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the indices of each name, in the order of the names."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        indices.setdefault(name, []).append(index)
    return dict(sorted(indices.items()))


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
