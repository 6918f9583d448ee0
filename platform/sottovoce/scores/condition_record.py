"""The record of models that were scored under conditions, `conditions.json`."""

from collections.abc import Mapping

from pydantic import Field

from sottovoce.schema import Record
from sottovoce.text.paired import WerDifference
from sottovoce.text.score import ErrorRate
from sottovoce.text.scoring_table import Headline

CLEAN = "clean"
"""The name of untouched speech, as a condition and as a level."""


class LevelScore(Record):
    """The error rates of all models at one level of a condition."""

    level: str
    rates: tuple[ErrorRate, ...]
    """Of the models, in their order, by the headline metric."""
    difference: WerDifference | None = None
    """The rate of the first model minus that of the second; None for a single model."""


class ConditionScore(Record):
    """One condition: a curve for each model."""

    name: str
    title: str
    axis: str
    """What the levels are."""
    clean_at: int
    """The index of the level before which untouched speech lies."""
    levels: tuple[LevelScore, ...]


class ConditionsRecord(Record):
    """The scores of one or two models under conditions."""

    models: tuple[str, ...] = Field(min_length=1, max_length=2)
    metric: Headline
    """The rate that all levels are scored by: the headline of the utterances' languages."""
    normalizer: str
    decoding: str
    """How the texts were decoded."""
    num_utterances: int
    audio_s: float
    """Seconds of untouched speech."""
    seed: int
    left_out: Mapping[str, str] = Field(default_factory=dict)
    """Why an utterance was not scored, by id."""
    clean: LevelScore
    conditions: tuple[ConditionScore, ...] = ()
