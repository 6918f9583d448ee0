"""Score utterances as a whole and by corpus and language; each text is normalized by the rules for its language."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sottovoce.schema import Record, Utterance
from sottovoce.text.normalize import Normalizer, Rules, build_normalizer
from sottovoce.text.score import PublishedRate, Score, count_words, error_rate, score_pairs
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
    """Error rates of one corpus or one language."""

    kind: Literal["corpus", "language"]
    name: str
    """The corpus's name, or the ISO 639-1 code of the spoken language."""
    num_utterances: int
    num_words: int
    """In the normalized references."""
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

    def score(indices: Sequence[int], published: PublishedRate | None = None) -> Score:
        chosen = [utterances[index] for index in indices]
        return score_pairs(
            [pairs[index] for index in indices],
            [normalized[index] for index in indices],
            normalizer=name_normalizer(chosen, normalizer),
            seed=seed,
            headline=headline_metric(chosen),
            published=published,
        )

    corpora = _indices_by_name(one.corpus or _UNNAMED for one in utterances)
    languages = _indices_by_name(one.language for one in utterances)
    return GroupedScore(
        score=score(range(len(pairs)), score_published(utterances, hypotheses, normalizer, seed, spelling)),
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
        cer_low=score.cer.low,
        cer_high=score.cer.high,
        headline=score.headline,
        normalizer=score.normalizer,
    )
