"""Corpora and languages that a run made worse."""

from dataclasses import dataclass

from sottovoce.report.diagnosis.finding import Finding, SettingChange, change, slower
from sottovoce.report.diagnosis.outcome import NOTABLE_WER
from sottovoce.report.template import format_percent
from sottovoce.text.group_score import GroupScore
from sottovoce.train.record import TrainingRecord

_NUM_NAMED = 3  # of the worst; the report's table has them all


@dataclass(frozen=True)
class GroupChange:
    """One corpus or language before training and in the best checkpoint."""

    before: GroupScore
    after: GroupScore

    @property
    def rise(self) -> float:
        """Of WER, a fraction; negative where it fell."""
        return self.after.wer - self.before.wer

    @property
    def is_certain(self) -> bool:
        """The 95 % intervals do not overlap."""
        return self.after.wer_low > self.before.wer_high or self.after.wer_high < self.before.wer_low

    @property
    def is_worse(self) -> bool:
        """WER rose by more than counts as nothing."""
        return self.rise > NOTABLE_WER


def compare_groups(record: TrainingRecord) -> list[GroupChange]:
    """Pair each group of the best checkpoint with the base model's."""
    before = {(group.kind, group.name): group for group in record.baseline.groups}
    return [
        GroupChange(before[group.kind, group.name], group)
        for group in record.best.groups
        if (group.kind, group.name) in before
    ]


def find_worse_groups(record: TrainingRecord) -> Finding | None:
    """Tell which corpora and languages got worse than with the base model."""
    worse = sorted((one for one in compare_groups(record) if one.is_worse), key=lambda one: -one.rise)
    certain = [one for one in worse if one.is_certain]
    if not worse:
        return None
    named = (certain or worse)[:_NUM_NAMED]
    rest = len(worse) - len(named)
    more = f"; {rest} more got worse" if rest else ""
    doubt = "" if certain else " The 95 % intervals overlap: this may be chance."
    return Finding(
        name="group_got_worse",
        severity="serious" if certain else "note",
        seen=f"WER of {', '.join(map(_describe, named))} at step {record.best_step}{more}.{doubt}",
        advice=f"What the base model knew is being forgotten: mix in more speech of {_name(named[0].after)} (its "
        "manifest with 2 among data.weights reads it twice as often), lower the learning rate, or train fewer weights."
        if certain
        else "See that it does not go on; more validation utterances of that kind would tell.",
        changes=_changes(record) if certain else (),
    )


def _describe(one: GroupChange) -> str:
    return (
        f"{_name(one.after)} rose from {format_percent(one.before.wer)} to "
        f"{format_percent(one.after.wer)} ({one.after.num_utterances} utterances)"
    )


def _name(group: GroupScore) -> str:
    return f"{group.kind} {group.name}"


def _changes(record: TrainingRecord) -> tuple[SettingChange, ...]:
    method = (change(record, "method", "frozen_encoder"),) if record.training.method == "full" else ()
    return (slower(record, 2.0), *method)
