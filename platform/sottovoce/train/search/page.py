"""The page of a search: one HTML file that needs nothing beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from sottovoce.page.plots import ACCENT, INK, SERIES, themed_figure, to_svg
from sottovoce.page.template import load_template
from sottovoce.train.search.journal import SearchRecord, Trial, rank_trials
from sottovoce.train.whole_file import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE_FILE = "search.html"
_SIZE = (5.0, 3.4)  # inches
_MARKERS = {"finished": "o", "given_up": "v"}


def write_page(record: SearchRecord, path: Path, *, name: str) -> None:
    """Write the page.

    Args:
        record: what was found.
        path: of the page.
        name: of the search.
    """
    page = load_template("page.html.j2", package="sottovoce.train", folder="search").render(
        name=name,
        record=record,
        best=record.trials[record.best],
        ranked=rank_trials(record.trials),
        curves=draw_curves(record),
        rates=draw_rates(record),
    )
    write_whole(path, page)


def draw_curves(record: SearchRecord) -> Markup:
    """Draw the WER of each trial over its steps, the best one's in the page's accent."""
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for trial in record.trials:
            is_best = trial.number == record.best
            axes.plot(
                [row.step for row in trial.rows],
                [100 * row.wer for row in trial.rows],
                marker=_MARKERS.get(trial.state, "x"),
                color=ACCENT if is_best else INK,
                alpha=1.0 if is_best else 0.35,
                linewidth=2.0 if is_best else 1.0,
                zorder=3 if is_best else 2,
            )
        _finish(axes, xlabel="step")
        return to_svg(figure, "WER of each trial over its steps; the table below lists where each was lowest")


def draw_rates(record: SearchRecord) -> Markup:
    """Draw each trial's lowest WER over its learning rate, coloured by what else differs."""
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for place, (label, trials) in enumerate(_by_choices(record).items()):
            color = SERIES[place % len(SERIES)]
            for trial in trials:
                if trial.best is not None:
                    axes.scatter(
                        trial.settings.learning_rate,
                        100 * trial.best.wer,
                        marker=_MARKERS.get(trial.state, "x"),
                        color=color,
                        s=90 if trial.number == record.best else 30,
                    )
            axes.scatter([], [], color=color, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda rate, _place: f"{rate:.0e}")  # its own is a formula, no text of the page
        axes.xaxis.set_minor_formatter(lambda _rate, _place: "")
        if any(_by_choices(record)):
            axes.legend(framealpha=0)
        _finish(axes, xlabel="learning rate")
        return to_svg(figure, "Lowest WER of each trial over its learning rate; the table below lists them")


def _by_choices(record: SearchRecord) -> dict[str, list[Trial]]:
    """Group trials by what they chose besides the learning rate; one group without a name where that is all."""
    groups: dict[str, list[Trial]] = {}
    for trial in record.trials:
        groups.setdefault(_choices(record, trial), []).append(trial)
    return dict(sorted(groups.items()))


def _choices(record: SearchRecord, trial: Trial) -> str:
    parts = []
    if len(set(record.search.warmup_steps)) > 1:
        parts.append(f"warm-up {trial.settings.warmup_steps}")
    if len(set(record.search.lora_rank)) > 1:
        parts.append(f"rank {trial.settings.lora_rank}")
    return ", ".join(parts)


def _finish(axes: "Axes", *, xlabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel="WER, percent", ylim=(0, None))
    axes.grid(alpha=0.3)
