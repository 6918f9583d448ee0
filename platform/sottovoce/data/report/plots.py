"""Pictures for HTML pages: SVG whose text and lines take the page's colours, in light and in dark mode."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from sottovoce.audio.features import log_mel, mel_filters
from sottovoce.data.report.figures import Histogram
from sottovoce.schema import HOP_LENGTH, SAMPLING_RATE, Waveform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _ACCENT = "#010203", "#040506"  # stand-ins no picture has; replaced by what the page's style says
_NUM_MEL_BINS = 80
_TICKS_HZ = (400, 1000, 2000, 4000)


def draw_histogram(histogram: Histogram, *, xlabel: str, ylabel: str) -> Markup:
    """Draw bars over the bins, with lines at the median and at the 5th and 95th percentile."""
    from matplotlib.ticker import MaxNLocator  # here: see themed_figure

    with themed_figure((9.0, 2.6)) as figure:
        axes = figure.subplots()
        edges = np.asarray(histogram.edges)
        axes.bar(edges[:-1], histogram.counts, width=np.diff(edges) * 0.94, align="edge", color=_ACCENT)
        axes.axvline(histogram.median, color=_INK, linewidth=1.2)
        for value in (histogram.p5, histogram.p95):
            axes.axvline(value, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, edges[-1]))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        summary = (
            f"Histogram, {xlabel}: median {histogram.median:.2f}, mean {histogram.mean:.2f}, from {histogram.low:.2f} "
            f"to {histogram.high:.2f}; 90 % between {histogram.p5:.2f} and {histogram.p95:.2f}"
        )
        return to_svg(figure, summary)


def draw_spectrogram(waveform: Waveform, *, description: str) -> Markup:
    """Draw the log-mel picture that Whisper reads, time in seconds and frequency on the mel axis.

    Args:
        waveform: (S,) float32 in [-1, 1], mono, 16 000 Hz.
        description: read aloud in the picture's place.
    """
    num_frames = -(-len(waveform) // HOP_LENGTH)
    picture = log_mel(waveform, num_mel_bins=_NUM_MEL_BINS, num_frames=num_frames)
    filters = mel_filters(_NUM_MEL_BINS)
    hertz_per_column = SAMPLING_RATE / 2 / (filters.shape[1] - 1)  # 40: every tick is a column
    with themed_figure((9.0, 2.0)) as figure:
        axes = figure.subplots()
        extent = (0.0, len(waveform) / SAMPLING_RATE, -0.5, _NUM_MEL_BINS - 0.5)
        axes.imshow(picture, origin="lower", aspect="auto", extent=extent, cmap="magma")
        ticks = [int(filters[:, round(hertz / hertz_per_column)].argmax()) for hertz in _TICKS_HZ]
        axes.set_yticks(ticks, [f"{hertz}" for hertz in _TICKS_HZ])
        axes.set(xlabel="time (s)", ylabel="Hz, mel scale")
        return to_svg(figure, description)


@contextmanager
def themed_figure(size_inches: tuple[float, float]) -> Iterator["Figure"]:
    """Give a figure in the page's ink, words kept as text; call ``to_svg`` inside, for the same bytes every time."""
    # Imported here: Ray workers that check rows import this package and draw nothing.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "sottovoce",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
        }
    )
    with settings:
        yield Figure(figsize=size_inches, layout="constrained")


def to_svg(figure: "Figure", description: str) -> Markup:
    """Give a figure as inline SVG; ``description`` is what a screen reader says."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor").replace(_ACCENT, "var(--accent, #2f6fb0)")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1))
