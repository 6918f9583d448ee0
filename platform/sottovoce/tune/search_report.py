"""Report a search: a self-contained HTML page, a recipe with the best settings, and a plain-text table."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from markupsafe import Markup

from sottovoce.atomic_write import atomic_write
from sottovoce.config import Config
from sottovoce.report.svg import ACCENT, INK, SERIES, themed_figure, to_svg
from sottovoce.report.template import load_template
from sottovoce.tune.journal import SearchRecord, Trial, rank_trials
from sottovoce.tune.space import apply_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

BEST_FILE = "best.yaml"
PAGE_FILE = "search.html"
_SIZE = (5.0, 3.4)  # inches
_MARKERS = {"finished": "o", "pruned": "v"}


def write_page(record: SearchRecord, path: Path, *, name: str) -> None:
    """Write the page.

    Args:
        record: the result of the search.
        path: file of the page.
        name: name of the search.
    """
    page = load_template("search_page.html.j2", package="sottovoce.tune", folder="").render(
        name=name,
        record=record,
        best=record.trials[record.best],
        ranked=rank_trials(record.trials),
        curves=draw_curves(record),
        rates=draw_rates(record),
    )
    atomic_write(path, page)


def draw_curves(record: SearchRecord) -> Markup:
    """Plot the error rate of each trial over its steps; the best trial is highlighted."""
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for trial in record.trials:
            is_best = trial.number == record.best
            axes.plot(
                [row.step for row in trial.rows],
                [100 * row.error_rate for row in trial.rows],
                marker=_MARKERS.get(trial.state, "x"),
                color=ACCENT if is_best else INK,
                alpha=1.0 if is_best else 0.35,
                linewidth=2.0 if is_best else 1.0,
                zorder=3 if is_best else 2,
            )
        _finish(axes, xlabel="step")
        return to_svg(figure, "Error rate of each trial over its steps; the table below lists where each was lowest")


def draw_rates(record: SearchRecord) -> Markup:
    """Plot the lowest error rate of each trial over its learning rate, coloured by its other settings."""
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for index, (label, trials) in enumerate(_by_choices(record).items()):
            color = SERIES[index % len(SERIES)]
            for trial in trials:
                if trial.best is not None:
                    axes.scatter(
                        trial.settings.learning_rate,
                        100 * trial.best.error_rate,
                        marker=_MARKERS.get(trial.state, "x"),
                        color=color,
                        s=90 if trial.number == record.best else 30,
                    )
            axes.scatter([], [], color=color, label=label)
        axes.set_xscale("log")
        # The default formatter writes formulas, which are no text in the page.
        axes.xaxis.set_major_formatter(lambda rate, _index: f"{rate:.0e}")
        axes.xaxis.set_minor_formatter(lambda _rate, _index: "")
        if any(_by_choices(record)):
            axes.legend(framealpha=0)
        _finish(axes, xlabel="learning rate")
        return to_svg(figure, "Lowest error rate of each trial over its learning rate; the table below lists them")


def _by_choices(record: SearchRecord) -> dict[str, list[Trial]]:
    """Group trials by their settings besides the learning rate; one unnamed group if nothing else differs."""
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
    axes.set(xlabel=xlabel, ylabel="error rate, percent", ylim=(0, None))
    axes.grid(alpha=0.3)


def publish_search(record: SearchRecord, output: Path, *, data: Config) -> None:
    """Write ``best.yaml``, a recipe with the best settings, and ``search.html`` into the search's folder.

    Args:
        record: the result of the search.
        output: the folder of the search.
        data: the settings of the data, in the form that the training job reads.
    """
    write_best(record, output / BEST_FILE, data=data)
    write_page(record, output / PAGE_FILE, name=output.resolve().name)
    logger.info("recipe %s, page %s", output / BEST_FILE, output / PAGE_FILE)


def write_best(record: SearchRecord, path: Path, *, data: Config) -> None:
    """Write a recipe that trains with the settings of the best trial."""
    best = record.trials[record.best]
    assert best.best is not None, "the best trial was evaluated"
    recipe = {
        "data": data.model_dump(mode="json"),
        "training": apply_settings(record.training, best.settings).model_dump(mode="json"),
        "output": str(path.parent / "best"),
    }
    heading = (
        "# job: jobs.train_whisper\n"
        f"# Trial {best.number} of {len(record.trials)}: {best.settings.describe()}; "
        f"{best.best.rate_name} {best.best.error_rate:.2%} at step {best.best.step}.\n"
    )
    atomic_write(path, heading + yaml.safe_dump(recipe, sort_keys=False))


def search_table(record: SearchRecord) -> str:
    """Format the trials as a plain-text table, best first."""
    compared = record.trials[record.best].best
    name = "WER" if compared is None else compared.rate_name
    header = ("trial", "learning rate", "warm-up", "rank", "state", "steps", f"best {name} percent", "at step")
    rows = [header, *(_row(trial) for trial in rank_trials(record.trials))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    best = record.trials[record.best]
    return "\n".join([f"best: trial {best.number}, {best.settings.describe()}", *lines])


def _row(trial: Trial) -> tuple[str, ...]:
    settings, best = trial.settings, trial.best
    return (
        str(trial.number),
        f"{settings.learning_rate:.2e}",
        str(settings.warmup_steps),
        "-" if settings.lora_rank is None else str(settings.lora_rank),
        trial.state,
        str(trial.rows[-1].step) if trial.rows else "0",
        "-" if best is None else f"{100 * best.error_rate:.2f}",
        "-" if best is None else str(best.step),
    )
