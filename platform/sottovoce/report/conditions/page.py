"""Write the report on models under conditions: a self-contained HTML page, a JSON file and a plain-text table."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sottovoce.atomic_write import atomic_write
from sottovoce.report.conditions.plots import draw_condition, list_levels
from sottovoce.report.template import format_percent, load_template
from sottovoce.scores.condition_record import ConditionScore, ConditionsRecord, LevelScore

logger = logging.getLogger(__name__)

RECORD_FILE = "conditions.json"
PAGE_FILE = "conditions.html"
_SIGNS = ("better", "worse")
_NAME_LENGTH = 48  # characters of a model's name in a legend


@dataclass(frozen=True)
class Panel:
    """One condition on the page."""

    score: ConditionScore
    levels: tuple[LevelScore, ...]
    """In the order of the curve, untouched speech among them."""
    svg: Markup

    @property
    def title(self) -> str:
        """The heading."""
        return self.score.title

    @property
    def caption(self) -> str:
        """At which levels the first model is better or worse than the second; of a single model its highest rate."""
        levels = self.score.levels
        if levels[0].difference is None:
            worst = max(levels, key=lambda one: one.rates[0].rate)
            return f"Highest at {worst.level}: {format_percent(worst.rates[0].rate)}."
        by_verdict = {verdict: [one.level for one in levels if describe_verdict(one) == verdict] for verdict in _SIGNS}
        shown = [f"{verdict} at {', '.join(names)}" for verdict, names in by_verdict.items() if names]
        return f"The first model is {'; '.join(shown)}." if shown else "No difference is shown at any level."


def publish_conditions(records: Iterable[ConditionsRecord], folder: Path) -> ConditionsRecord:
    """Write ``conditions.json`` and ``conditions.html`` for each record as it comes, so that a stop loses little.

    Args:
        records: from ``score_under_conditions``; the last one is complete.
        folder: receives both files; it exists.

    Returns:
        The last record.

    Raises:
        ValueError: no record.
    """
    record = None
    for record in records:
        atomic_write(folder / RECORD_FILE, record.model_dump_json(indent=2) + "\n")
        atomic_write(folder / PAGE_FILE, render_page(record))
    if record is None:
        raise ValueError("there is no record to publish")
    logger.info("page with %d conditions in %s", len(record.conditions), folder / PAGE_FILE)
    return record


def render_page(record: ConditionsRecord) -> str:
    """Render the page; all names are escaped."""
    names = [shorten_name(name) for name in record.models]
    panels = [
        Panel(one, tuple(list_levels(record, one)), draw_condition(record, one, names)) for one in record.conditions
    ]
    template = load_template("page.html.j2", package="sottovoce.report", folder="conditions")
    differences = [level.difference for level in _all_levels(record) if level.difference is not None]
    return template.render(
        record=record,
        names=names,
        panels=panels,
        verdict=describe_verdict,
        num_differences=len(differences),
        num_better=sum(one.is_certain and one.difference < 0 for one in differences),
        num_worse=sum(one.is_certain and one.difference > 0 for one in differences),
    )


def describe_verdict(level: LevelScore) -> str:
    """Say whether the first model is better at a level, or that chance may explain the difference."""
    difference = level.difference
    if difference is None:
        return ""
    if not difference.is_certain:
        return "no difference shown"
    return _SIGNS[difference.difference > 0]


def conditions_table(record: ConditionsRecord) -> str:
    """Format the rates in percent as a plain-text table; of two models, with their difference in points."""
    has_two = len(record.models) > 1
    header = ("condition", "level", *(name for model in record.models for name in (shorten_name(model), "95 %")))
    rows = [(*header, *(("points", "verdict") if has_two else ())), _row("clean", record.clean)]
    rows += [_row(condition.name, level) for condition in record.conditions for level in condition.levels]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counted = f"{record.num_utterances} utterances, {record.audio_s:.0f} s"
    return "\n".join([f"{record.metric.upper()} in percent ({record.normalizer}), {counted}", *lines])


def shorten_name(name: str) -> str:
    """Keep the end of a model's name, which tells paths apart better than their start."""
    return name if len(name) <= _NAME_LENGTH else "…" + name[1 - _NAME_LENGTH :]


def _row(condition: str, level: LevelScore) -> tuple[str, ...]:
    cells = [condition, level.level]
    for rate in level.rates:
        cells += [f"{100 * rate.rate:.2f}", f"{100 * rate.low:.1f} - {100 * rate.high:.1f}"]
    if level.difference is not None:
        cells += [f"{100 * level.difference.difference:+.2f}", describe_verdict(level)]
    return tuple(cells)


def _all_levels(record: ConditionsRecord) -> Sequence[LevelScore]:
    return [record.clean, *(level for condition in record.conditions for level in condition.levels)]
