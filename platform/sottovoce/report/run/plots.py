"""The plots of a run: panels over its steps."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.report.diagnosis.finding import Series, series_of
from sottovoce.report.svg import INK, SERIES, themed_figure, to_svg
from sottovoce.train.metrics.curves import CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (5.0, 3.0)  # inches; at half the page's width a point of text is a point on screen
_MAX_POINTS = 300  # the width of a panel in pixels; more points are averaged
_LOG_RATIO = 10.0  # guess: above it small values are not readable on a linear axis
_MANY_STEPS = 20_000
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Steps that every panel marks."""

    kept: int | None = None
    """Step of the checkpoint that was kept."""
    resumed: tuple[int, ...] = ()
    """Steps from which the run resumed after a worker or the driver had died."""


@dataclass(frozen=True)
class Panel:
    """One plot with title and caption."""

    title: str
    caption: str
    svg: Markup


def draw_losses(rows: Sequence[EvaluationRow], curves: Sequence[CurvePoint], marks: Marks) -> Panel:
    """Draw the training loss, logged and as means between evaluations, and the validation loss."""
    logged = thin(series_of(curves, "train/loss"))
    trained = [row for row in rows if row.training_loss is not None and math.isfinite(row.training_loss)]
    measured = [row for row in rows if math.isfinite(row.validation_loss)]
    training = [float(row.training_loss or 0.0) for row in trained]
    validation = [row.validation_loss for row in measured]
    with _panel("loss per token (nats)", marks, "Training and validation loss over the steps") as (axes, finish):
        if len(logged):
            axes.plot(logged.steps, logged.values, color=SERIES[0], alpha=0.45, linewidth=1.0, label="training, logged")
        axes.plot([row.step for row in trained], training, **_line(0), label="training, mean since the point before")
        axes.plot([row.step for row in measured], validation, **_line(1), label="validation")
        _scale(axes, [*logged.values.tolist(), *training, *validation])
        svg = finish()
    caption = "Rising validation loss while the training loss falls is over-fit; WER may still fall for a while."
    return Panel("Loss", caption, svg)


def draw_error_rates(rows: Sequence[EvaluationRow], marks: Marks) -> Panel:
    """Draw WER and CER, with the interval of the one that chooses."""
    steps = [row.step for row in rows]
    with _panel("error rate (%)", marks, "Validation WER and CER over the steps") as (axes, finish):
        low, high = zip(*((100 * low, 100 * high) for low, high in (row.error_interval for row in rows)), strict=True)
        name, color = rows[-1].rate_name, SERIES[3 if rows[-1].headline == "cer" else 2]
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0, label=f"{name}, 95 % interval")
        axes.plot(steps, [100 * row.wer for row in rows], **_line(2), label="WER")
        axes.plot(steps, [100 * row.cer for row in rows], **_line(3), label="CER")
        for row in rows:
            if row.step == marks.kept:
                rate = [100 * row.error_rate]
                axes.plot([row.step], rate, "o", markersize=11, fillstyle="none", color=INK, label="kept")
        axes.set_ylim(0, None)
        svg = finish()
    return Panel("Validation error rates", "Word and character error rate on the validation split.", svg)


def draw_metrics(curves: Sequence[CurvePoint], marks: Marks, *, max_grad_norm: float) -> list[Panel]:
    """Draw a panel for each other logged metric."""
    panels = (
        _draw_rate(series_of(curves, "train/learning_rate"), marks),
        _draw_gradient_norm(series_of(curves, "train/gradient_norm"), marks, limit=max_grad_norm),
        _draw(
            series_of(curves, "train/audio_s_per_s"), marks, "Throughput", "speech (s) per second",
            caption="Seconds of speech trained on in a second, all workers together; evaluations are left out.",
        ),
        _draw_data_wait(series_of(curves, "train/data_wait"), marks),
        _draw(
            series_of(curves, "train/memory_gib"), marks, "Memory", "GiB",
            caption="Of the worker with the most: what tensors ever took on a GPU, or the process on a CPU.",
        ),
        _draw_loss_scale(series_of(curves, "train/loss_scale"), marks),
        _draw_skipped_steps(series_of(curves, "train/skipped_steps"), marks),
    )  # fmt: skip
    return [panel for panel in panels if panel is not None]


def thin(series: Series, *, max_points: int = _MAX_POINTS) -> Series:
    """Reduce a series to at most ``max_points``, each the mean of neighbouring points."""
    if len(series) <= max_points:
        return series
    parts = series.parts(max_points)
    return Series(
        np.array([part.steps[-1] for part in parts], dtype=np.int64), np.array([part.values.mean() for part in parts])
    )


def _draw(series: Series, marks: Marks, title: str, ylabel: str, *, caption: str) -> Panel | None:
    """Draw one line on an axis from zero."""
    if not len(series):
        return None
    shown = thin(series)
    with _panel(ylabel, marks, f"{title} over the steps, in {ylabel}") as (axes, finish):
        axes.plot(shown.steps, shown.values, color=SERIES[0], linewidth=1.4)
        axes.set_ylim(0, 1.08 * float(shown.values.max()) or 1.0)
        return Panel(title, caption, finish())


def _draw_rate(series: Series, marks: Marks) -> Panel | None:
    highest = float(series.values.max()) if len(series) else 0.0
    if highest <= 0.0:
        return None
    power = math.floor(math.log10(highest))
    unit = "10" + str(power).translate(_SUPERSCRIPTS)
    caption = f"Highest: {highest:g}."
    scaled = Series(series.steps, series.values * 10.0**-power)
    return _draw(scaled, marks, "Learning rate", f"learning rate ({unit})", caption=caption)


def _draw_data_wait(series: Series, marks: Marks) -> Panel | None:
    if not len(series):
        return None
    shown = thin(series)
    percent = 100 * shown.values
    with _panel("share of the steps' time (%)", marks, "Share of the steps' time spent waiting for data") as panel:
        axes, finish = panel
        axes.plot(shown.steps, percent, color=SERIES[0], linewidth=1.4)
        axes.set_ylim(0, max(5.0, 1.08 * float(percent.max())))  # below 5 % it does not matter, and should look small
        svg = finish()
    return Panel("Data wait", "Of the worker that waited most for its batches.", svg)


def _draw_gradient_norm(series: Series, marks: Marks, *, limit: float) -> Panel | None:
    if not len(series):
        return None
    shown = thin(series)
    with _panel("gradient norm", marks, "Norm of the gradient over the steps, before clipping") as (axes, finish):
        axes.plot(shown.steps, shown.values, color=SERIES[0], linewidth=1.4, label="before clipping")
        axes.axhline(limit, color=SERIES[1], linewidth=1.2, linestyle=(0, (5, 3)), label="clipped to")
        _scale(axes, [*shown.values.tolist(), limit])
        svg = finish()
    return Panel("Gradient norm", f"Longer gradients are shortened to {limit:g} (max_grad_norm).", svg)


def _draw_loss_scale(series: Series, marks: Marks) -> Panel | None:
    if not np.any(series.values != 1.0):  # its value in every precision but fp16
        return None
    with _panel("factor", marks, "Loss scale over the steps") as (axes, finish):
        axes.step(series.steps, series.values, where="post", color=SERIES[0], linewidth=1.4)
        axes.set_yscale("log", base=2)
        svg = finish()
    caption = "What fp16 multiplies losses with; it halves at each overflow and grows again."
    return Panel("Loss scale", caption, svg)


def _draw_skipped_steps(series: Series, marks: Marks) -> Panel | None:
    if not len(series) or not series.values[-1]:
        return None
    caption = "Steps so far that changed nothing, because loss or gradient was not finite."
    return _draw(series, marks, "Skipped steps", "steps", caption=caption)


@contextmanager
def _panel(ylabel: str, marks: Marks, description: str) -> Iterator[tuple["Axes", Callable[[], Markup]]]:
    """Open axes over the steps; the second value is a function that finishes the plot."""
    from matplotlib.ticker import MaxNLocator  # imported here: see themed_figure

    with themed_figure(_SIZE) as figure:
        axes = figure.subplots()
        for step in marks.resumed:
            axes.axvline(step, color=INK, alpha=0.7, linewidth=1.1, linestyle=(0, (1, 2)))

        def finish() -> Markup:
            axes.set(xlabel="step", ylabel=ylabel)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            if axes.get_xlim()[1] > _MANY_STEPS:
                axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            handles, labels = axes.get_legend_handles_labels()
            if labels:
                figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9)
            return to_svg(figure, description)

        yield axes, finish


def _line(index: int) -> dict[str, Any]:
    return {"color": SERIES[index], "marker": "o", "markersize": 4, "linewidth": 1.6}


def _scale(axes: "Axes", values: Sequence[float]) -> None:
    """Start the axis at zero, or make it logarithmic if the values span several orders of magnitude."""
    from matplotlib.ticker import LogLocator, NullFormatter  # imported here: see themed_figure

    low, high = min(values, default=0.0), max(values, default=0.0)
    if low > 0 and high > _LOG_RATIO * low:
        axes.set_yscale("log")
        subs = (1.0, 2.0, 5.0) if high < 1_000 * low else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1_000 else f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif low >= 0:
        axes.set_ylim(0, 1.08 * high or 1.0)
