"""Whether one model is better than another on the same utterances, in a sentence."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sottovoce.errors import ManifestError
from sottovoce.schema import Record, Utterance
from sottovoce.scores.formatting import share_of_digits
from sottovoce.scores.scored import ScoredUtterance
from sottovoce.text.normalize import Normalizer
from sottovoce.text.paired import SIGNIFICANCE, ClusterKind, WerDifference, compare_wer
from sottovoce.text.scoring_table import Headline

_NUM_NAMED = 3
_VERY_UNLIKELY = 0.005  # at the most to say 1 of 100: the probability is known to 0.002 there
_UNITS = {"wer": "words", "cer": "characters"}


@dataclass(frozen=True, kw_only=True)
class OtherScore:
    """The texts of another model."""

    name: str
    decoding: str
    hypotheses: Mapping[str, str]
    """By utterance id."""

    def require(self, ids: Sequence[str]) -> None:
        """Check that there is a text for every utterance.

        Raises:
            ManifestError: some are missing.
        """
        missing = [one for one in ids if one not in self.hypotheses]
        if missing:
            reason = f"lacks {len(missing)} of {len(ids)} utterances, such as {', '.join(missing[:_NUM_NAMED])}"
            raise ManifestError(self.name, f"{reason}; score both models on the same manifest and split")


class Verdict(Record):
    """A model against another one. Rates are fractions."""

    model: str
    against: str
    metric: Headline
    difference: float
    """The model's rate minus that of the other; below zero, the model is better."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    chance: float
    """Probability of at least this difference between equal models."""
    is_certain: bool
    num_utterances: int
    num_units: int
    """Words or characters of the references."""
    num_clusters: int
    clusters: ClusterKind
    """What was resampled as a whole."""
    against_digits: float
    """Share of digits among the letters and digits of the other model's texts; see ``Formatting``."""
    sentence: str
    """The verdict in words."""


def read_score(path: Path) -> OtherScore:
    """Read the texts of a ``score.json``.

    Raises:
        ManifestError: no such file, or it is no score.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        name = values.get("model") or f"{path} ({values['recognizer']})"  # scores of older releases name no model
        return OtherScore(name=name, decoding=values.get("decoding", ""), hypotheses=dict(values["hypotheses"]))
    except OSError as error:
        raise ManifestError(path, f"cannot be read: {error.strerror}; name a score.json or a model") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(path, "is no score; jobs.score_manifest writes one") from error


def judge(
    scored: Sequence[ScoredUtterance],
    other: OtherScore,
    *,
    model: str,
    normalizer: Normalizer,
    spelling: Mapping[str, str] | None = None,
) -> Verdict:
    """Compare a model's texts with those of another model on the same utterances.

    Args:
        scored: the model's.
        other: the other one's; it may hold more utterances, but no fewer.
        model: the model's name.
        normalizer: of all texts.
        spelling: see ``normalize``.

    Raises:
        ManifestError: the other score lacks utterances.
    """
    utterances = [one.utterance for one in scored]
    other.require([one.id for one in utterances])
    texts = [other.hypotheses[one.id] for one in utterances]
    change = compare_wer(
        utterances, [texts], [[one.hypothesis for one in scored]], normalizer=normalizer, spelling=spelling
    )
    return Verdict(
        model=model,
        against=other.name,
        metric=change.metric,
        difference=change.difference,
        low=change.low,
        high=change.high,
        chance=change.chance,
        is_certain=change.is_certain,
        num_utterances=len(scored),
        num_units=change.num_units,
        num_clusters=change.num_clusters,
        clusters=change.clusters,
        against_digits=share_of_digits(texts),
        sentence=f"{_describe(change, model, other.name)} {_describe_reach(change, utterances)}",
    )


def _describe(change: WerDifference, model: str, other: str) -> str:
    """Describe who is better and by how much, or that nobody can tell."""
    units, metric = f"{change.num_units} {_UNITS[change.metric]}", change.metric.upper()
    points, low, high = (100 * value for value in (change.difference, change.low, change.high))
    if points < 0.0:
        points, low, high = -points, -high, -low
    interval = f"(95 % interval {low:.1f} to {high:.1f})"
    if not change.is_certain:
        side = "higher" if change.difference > 0.0 else "lower"
        amount = (
            f"the {metric} of the former is {points:.1f} points {side} {interval}" if points else "errors are as many"
        )
        return f"No difference can be told on {units} between {model} and {other}: {amount}."
    side = "worse" if change.difference > 0.0 else "better"
    one_of = 100 if change.chance < _VERY_UNLIKELY else round(1 / SIGNIFICANCE)
    chance = f"such a difference arises by chance in fewer than 1 of {one_of} comparisons"
    return f"{model} is {side} than {other} by {points:.1f} points of {metric} {interval} on {units}; {chance}."


def _describe_reach(change: WerDifference, utterances: Sequence[Utterance]) -> str:
    """Describe whom the verdict holds for."""
    if change.clusters == "speaker":
        return f"It holds for other speakers like these {change.num_clusters}."
    speakers = {one.speaker for one in utterances if one.speaker is not None}
    if speakers and all(one.speaker is not None for one in utterances):
        return f"It holds for {'this speaker' if len(speakers) == 1 else f'these {len(speakers)} speakers'} alone."
    return "The manifest does not name all speakers: it holds if each utterance has a speaker of its own."
