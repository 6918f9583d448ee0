"""Find corpora and languages that a run made worse."""

from dataclasses import dataclass

from sottovoce.report.diagnosis.finding import Finding, SettingChange, gentler_method, slower
from sottovoce.report.diagnosis.outcome import NOTABLE_WER
from sottovoce.report.template import format_percent
from sottovoce.text.group_score import GroupScore
from sottovoce.train.record import TrainingRecord

_NUM_NAMED = 3  # the worst; the report's table has all


@dataclass(frozen=True)
class GroupChange:
    """The scores of one corpus or language before training and in the best checkpoint."""

    before: GroupScore
    after: GroupScore

    @property
    def rise(self) -> float:
        """Rise of the error rate, a fraction; negative if it fell."""
        return self.after.error_rate - self.before.error_rate

    @property
    def is_certain(self) -> bool:
        """Whether the 95 % intervals do not overlap."""
        (before_low, before_high), (after_low, after_high) = self.before.error_interval, self.after.error_interval
        return after_low > before_high or after_high < before_low

    @property
    def is_worse(self) -> bool:
        """Whether the error rate rose by a notable amount."""
        return self.rise > NOTABLE_WER


def compare_groups(record: TrainingRecord) -> list[GroupChange]:
    """Pair each group's score in the best checkpoint with the base model's."""
    before = {(group.kind, group.name): group for group in record.baseline.groups}
    return [
        GroupChange(before[group.kind, group.name], group)
        for group in record.best.groups
        if (group.kind, group.name) in before
    ]


def find_worse_groups(record: TrainingRecord) -> Finding | None:
    """Report the corpora and languages that got worse than with the base model."""
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
        seen=f"{named[0].after.rate_name} of {', '.join(map(_describe, named))} "
        f"at step {record.best_step}{more}.{doubt}",
        advice=f"The model forgets what the base model knew: add more speech of {_name(named[0].after)} (a weight of 2 "
        "for its manifest in data.weights reads it twice as often), lower the learning rate, or train fewer weights."
        if certain
        else "Watch whether it continues; more validation utterances of that kind would decide it.",
        changes=_changes(record) if certain else (),
    )


def _describe(one: GroupChange) -> str:
    return (
        f"{_name(one.after)} rose from {format_percent(one.before.error_rate)} to "
        f"{format_percent(one.after.error_rate)} ({one.after.num_utterances} utterances)"
    )


def _name(group: GroupScore) -> str:
    return f"{group.kind} {group.name}"


def _changes(record: TrainingRecord) -> tuple[SettingChange, ...]:
    return (slower(record, 2.0), *gentler_method(record))
