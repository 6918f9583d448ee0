"""Report a comparison of contexts: a self-contained HTML page and a plain-text table."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from sottovoce.atomic_write import atomic_write
from sottovoce.report.svg import SERIES, themed_figure, to_svg
from sottovoce.report.template import load_template
from sottovoce.tune.context_plan import name_context
from sottovoce.tune.context_record import ContextRecord, ContextResult, EngineScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

PAGE_FILE = "contexts.html"
_SIZE = (5.0, 3.2)  # inches


def write_page(record: ContextRecord, path: Path, *, name: str) -> None:
    """Write the page.

    Args:
        record: the result of the comparison.
        path: file of the page.
        name: name of the comparison.
    """
    page = load_template("context_page.html.j2", package="sottovoce.tune", folder="").render(
        name=name,
        record=record,
        name_context=name_context,
        rates=draw_rates(record),
        speeds=draw_speeds(record),
        curves=draw_curves(record),
    )
    atomic_write(path, page)


def draw_rates(record: ContextRecord) -> Markup:
    """Plot the WER of every context and engine, with its interval."""
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for index, result in enumerate(record.results):
            positions = [_offset(engine, index, record) for engine in range(len(result.scores))]
            wers = [100 * score.wer for score in result.scores]
            below = [max(0.0, 100 * (score.wer - score.wer_low)) for score in result.scores]
            above = [max(0.0, 100 * (score.wer_high - score.wer)) for score in result.scores]
            label = name_context(result.context_s)
            axes.errorbar(positions, wers, yerr=(below, above), fmt="o", capsize=4, color=_color(index), label=label)
        axes.set_xticks(range(len(record.results[0].scores)), [score.engine for score in record.results[0].scores])
        _finish(axes, ylabel="WER, percent")
        axes.legend(framealpha=0)
        return to_svg(figure, "WER of every context and engine with its 95 % interval; the table below lists them")


def draw_speeds(record: ContextRecord) -> Markup:
    """Plot the training and recognition speed of every context."""
    with themed_figure(_SIZE) as figure:
        training, recognition = figure.subplots(1, 2, width_ratios=(1, max(1, len(record.results[0].scores))))
        width = 0.8 / len(record.results)
        for index, result in enumerate(record.results):
            label, color = name_context(result.context_s), _color(index)
            training.bar(_offset(0, index, record), result.training_speed, width=width, color=color)
            positions = [_offset(engine, index, record) for engine in range(len(result.scores))]
            recognition.bar(positions, [score.rtfx for score in result.scores], width=width, color=color, label=label)
        training.set_xticks([0], ["training"])
        recognition.set_xticks(range(len(record.results[0].scores)), [one.engine for one in record.results[0].scores])
        _finish(training, ylabel="audio seconds per second")
        _finish(recognition, ylabel="")
        figure.legend(*recognition.get_legend_handles_labels(), loc="outside upper right", ncols=4, framealpha=0)
        return to_svg(figure, "Audio seconds per second in training and in recognition; the table below lists them")


def draw_curves(record: ContextRecord) -> Markup:
    """Plot validation WER over the steps, one line per run."""
    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for index, result in enumerate(record.results):
            for seed, rows in enumerate(result.curves):
                label = name_context(result.context_s) if seed == 0 else None
                steps, wers = [row.step for row in rows], [100 * row.wer for row in rows]
                axes.plot(steps, wers, marker="o", color=_color(index), label=label)
        axes.set(xlabel="step")
        _finish(axes, ylabel="validation WER, percent")
        axes.legend(framealpha=0)
        return to_svg(figure, "Validation WER of each run over its steps")


def _offset(engine: int, index: int, record: ContextRecord) -> float:
    """Return the x position of a context's mark among those of an engine."""
    return engine + (index - (len(record.results) - 1) / 2) * 0.8 / len(record.results)


def _color(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _finish(axes: "Axes", *, ylabel: str) -> None:
    axes.set(ylabel=ylabel, ylim=(0, None))
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)


def publish_contexts(record: ContextRecord, output: Path) -> None:
    """Write ``contexts.html`` into the comparison's folder."""
    write_page(record, output / PAGE_FILE, name=output.resolve().name)
    logger.info("page %s", output / PAGE_FILE)


def context_table(record: ContextRecord) -> str:
    """Format the contexts and engines as a plain-text table, followed by the verdict."""
    header = ("context", "audio-s/s trained", "data wait", "engine", "WER percent", "95 % interval", "RTFx")
    rows = [header, *(_row(result, score) for result in record.results for score in result.scores)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    scored = f"{record.num_utterances} utterances of split {record.search.split}, {record.num_words} words"
    return "\n".join([f"scored on {scored} ({record.normalizer})", *lines, record.verdict])


def _row(result: ContextResult, score: EngineScore) -> tuple[str, ...]:
    return (
        name_context(result.context_s),
        f"{result.training_speed:.1f}",
        f"{100 * result.data_wait:.1f} %",
        score.engine,
        f"{100 * score.wer:.2f}",
        f"{100 * score.wer_low:.2f} - {100 * score.wer_high:.2f}",
        f"{score.rtfx:.1f}",
    )
