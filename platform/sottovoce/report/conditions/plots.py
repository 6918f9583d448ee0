"""The curves of a condition: the error rate of each model over the levels, with its 95 % interval."""

from collections.abc import Sequence

from markupsafe import Markup

from sottovoce.report.svg import SERIES, themed_figure, to_svg
from sottovoce.scores.condition_record import CLEAN, ConditionScore, ConditionsRecord, LevelScore

_SIZE = (5.0, 3.0)  # inches; at half the page's width a point of text is a point on screen
_APART = 0.06  # of the distance between levels: intervals of two models would hide each other


def list_levels(record: ConditionsRecord, condition: ConditionScore) -> list[LevelScore]:
    """Return the levels of a condition in the order of its curve, untouched speech among them."""
    levels = list(condition.levels)
    levels.insert(condition.clean_at, record.clean)
    return levels


def draw_condition(record: ConditionsRecord, condition: ConditionScore, names: Sequence[str]) -> Markup:
    """Draw a line for each model over the levels of a condition, evenly spaced.

    Args:
        record: with untouched speech, which is a level of every curve.
        condition: one of the record's.
        names: of the models, in the legend.
    """
    levels = list_levels(record, condition)
    metric = record.metric.upper()
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for index, name in enumerate(names):
            rates = [level.rates[index] for level in levels]
            values = [100 * rate.rate for rate in rates]
            below = [max(0.0, 100 * (rate.rate - rate.low)) for rate in rates]
            above = [max(0.0, 100 * (rate.high - rate.rate)) for rate in rates]
            places = [place + _APART * (2 * index - len(names) + 1) for place in range(len(levels))]
            axes.errorbar(
                places, values, yerr=(below, above), label=name, color=SERIES[index], linewidth=1.6, marker="os"[index],
                markersize=4, capsize=3, elinewidth=1.0,
            )  # fmt: skip
        axes.set_xticks(range(len(levels)), [level.level for level in levels])
        axes.set(xlabel=condition.axis, ylabel=f"{metric} (%)", ylim=(0, None))
        axes.axvline(condition.clean_at, color=SERIES[0], alpha=0.25, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.grid(alpha=0.25, linewidth=0.6, axis="y")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=1, frameon=False, fontsize=9)
        shown = f"{metric} of {' and '.join(names)} from {CLEAN} speech over {condition.axis}, with 95 % intervals"
        return to_svg(figure, f"{condition.title}: {shown}; the table lists them")
