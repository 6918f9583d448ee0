"""Score utterances as a whole and in groups; each text is normalized by the rules for its language.

Shapes: U utterances.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import Record, Utterance
from sottovoce.text.normalize import Normalizer, Rules, build_normalizer
from sottovoce.text.score import PublishedRate, Score, count_characters, count_words, error_rate, score_pairs
from sottovoce.text.scoring_table import Headline, headline_metric, normalizer_for, published_rule

_UNNAMED = "unnamed"  # the corpus of utterances that name none


class Rates(Record):
    """The error rates of one set of utterances, as records keep them."""

    wer: float
    """Fraction."""
    wer_low: float
    """Lower end of the bootstrap 95 % interval."""
    wer_high: float
    cer: float
    cer_low: float | None = None
    """None in records of older releases, as ``cer_high``."""
    cer_high: float | None = None
    headline: Headline = "wer"
    """The rate that chooses: between checkpoints, trials and methods."""

    @property
    def error_rate(self) -> float:
        """The rate that the headline names, a fraction."""
        return self.cer if self.headline == "cer" else self.wer

    @property
    def error_interval(self) -> tuple[float, float]:
        """The 95 % interval of ``error_rate``; without width where it was not recorded."""
        if self.headline == "wer":
            return self.wer_low, self.wer_high
        low, high = self.cer_low, self.cer_high
        return self.cer if low is None else low, self.cer if high is None else high

    @property
    def rate_name(self) -> str:
        """The name of ``error_rate`` in texts: WER or CER."""
        return self.headline.upper()


class GroupScore(Rates):
    """Error rates of one group of utterances, such as those of a corpus or a language."""

    kind: str
    """What the utterances of the group share: corpus, language, speaker, or a column of the manifest."""
    name: str
    """Its value: the corpus's name, or the ISO 639-1 code of the spoken language."""
    num_utterances: int
    num_words: int
    """In the normalized references."""
    num_units: int | None = None
    """What ``error_rate`` divides by: ``num_words``, or characters. None in records of older releases, as below."""
    num_errors: int | None = None
    """The errors of ``error_rate``."""
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
        normalizer: of both sides; see ``normalizer_for``.
        seed: of the bootstrap.
        spelling: see ``normalize``.

    Raises:
        ValueError: different numbers of utterances and hypotheses.
    """
    pairs = [(one.text, hypothesis) for one, hypothesis in zip(utterances, hypotheses, strict=True)]
    normalized = normalize_pairs(utterances, hypotheses, normalizer=normalizer, spelling=spelling)

    counts = count_errors(utterances, normalized, normalizer=normalizer)
    score = score_pairs(
        pairs,
        normalized,
        normalizer=name_normalizer(utterances, normalizer),
        seed=seed,
        headline=headline_metric(utterances),
        published=score_published(utterances, hypotheses, normalizer, seed, spelling),
    )
    corpora = score_groups("corpus", [one.corpus or _UNNAMED for one in utterances], counts, seed=seed)
    languages = score_groups("language", [one.language for one in utterances], counts, seed=seed)
    several = (groups for groups in (corpora, languages) if len(groups) > 1)
    return GroupedScore(score=score, groups=tuple(group for groups in several for group in groups))


@dataclass(frozen=True, kw_only=True)
class ErrorCounts:
    """The errors of each utterance, counted once for all the groups that it is in."""

    utterances: Sequence[Utterance]
    words: NDArray[np.int64]
    """(U, 4) as of ``count_words``."""
    characters: NDArray[np.int64]
    """(U, 4) as of ``count_characters``."""
    normalizer: Normalizer


def count_errors(
    utterances: Sequence[Utterance], normalized: Sequence[tuple[str, str]], *, normalizer: Normalizer
) -> ErrorCounts:
    """Count the errors of U pairs of reference and hypothesis that ``normalize_pairs`` returned."""
    words, characters = count_words(normalized), count_characters(normalized)
    return ErrorCounts(utterances=utterances, words=words, characters=characters, normalizer=normalizer)


def score_groups(kind: str, names: Sequence[str], counts: ErrorCounts, *, seed: int = 0) -> list[GroupScore]:
    """Score the utterances of each name.

    Args:
        kind: what the names are of.
        names: U, the group of each utterance.
        counts: of the U utterances.
        seed: of the bootstrap.

    Returns:
        One score for each name, in the order of the names.
    """
    return [_score_group(kind, name, indices, counts, seed) for name, indices in _indices_by_name(names).items()]


def normalize_pairs(
    utterances: Sequence[Utterance],
    hypotheses: Sequence[str],
    *,
    normalizer: Normalizer,
    spelling: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """Return U pairs of reference and hypothesis, each normalized for its language; see ``score_utterances``."""
    return _apply([normalizer_for(one, normalizer) for one in utterances], utterances, hypotheses, spelling)


def score_published(
    utterances: Sequence[Utterance],
    hypotheses: Sequence[str],
    normalizer: Normalizer,
    seed: int = 0,
    spelling: Mapping[str, str] | None = None,
) -> PublishedRate | None:
    """Score as Whisper's authors do; None where the word error rate by ``normalizer`` is that, and for ``none``.

    Args:
        utterances: U, with their references.
        hypotheses: U recognized texts.
        normalizer: of the score that this one stands beside.
        seed: of the bootstrap.
        spelling: see ``normalize``.
    """
    rules = [published_rule(one) for one in utterances]
    if normalizer == "none" or rules == [normalizer_for(one, normalizer) for one in utterances]:
        return None
    return PublishedRate(
        rate=error_rate(count_words(_apply(rules, utterances, hypotheses, spelling)), seed=seed),
        metric="cer" if set(rules) == {"basic, split letters"} else "wer",
        normalizer=_name_rules(rules),
    )


def name_normalizer(utterances: Iterable[Utterance], normalizer: Normalizer) -> str:
    """Return the name of the normalization of several utterances."""
    return _name_rules([normalizer_for(utterance, normalizer) for utterance in utterances] or [normalizer])


def _apply(
    rules: Sequence[Rules],
    utterances: Sequence[Utterance],
    hypotheses: Sequence[str],
    spelling: Mapping[str, str] | None,
) -> list[tuple[str, str]]:
    """Return the pairs, both texts of each normalized by its own rules."""
    built = {name: build_normalizer(name, spelling) for name in set(rules)}
    return [
        (built[name](utterance.text), built[name](hypothesis))
        for name, utterance, hypothesis in zip(rules, utterances, hypotheses, strict=True)
    ]


def _name_rules(rules: Sequence[Rules]) -> str:
    used = sorted(set(rules))
    return "english, basic elsewhere" if used == ["basic", "english"] else "; ".join(used)


def _indices_by_name(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the indices of each name, in the order of the names."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        indices.setdefault(name, []).append(index)
    return dict(sorted(indices.items()))


def _score_group(kind: str, name: str, indices: Sequence[int], counts: ErrorCounts, seed: int) -> GroupScore:
    utterances = [counts.utterances[index] for index in indices]
    wer, cer = (error_rate(of_all[list(indices)], seed=seed) for of_all in (counts.words, counts.characters))
    headline = headline_metric(utterances)
    quoted = cer if headline == "cer" else wer
    return GroupScore(
        kind=kind,
        name=name,
        num_utterances=len(indices),
        num_words=wer.num_reference,
        num_units=quoted.num_reference,
        num_errors=quoted.substitutions + quoted.deletions + quoted.insertions,
        wer=wer.rate,
        wer_low=wer.low,
        wer_high=wer.high,
        cer=cer.rate,
        cer_low=cer.low,
        cer_high=cer.high,
        headline=headline,
        normalizer=name_normalizer(utterances, counts.normalizer),
    )
