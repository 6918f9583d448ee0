"""The plots of the corpus report: histograms and log-mel spectrograms."""

import numpy as np
from markupsafe import Markup

from sottovoce.audio.features import log_mel, mel_filters
from sottovoce.report.corpus.contents import Histogram
from sottovoce.report.svg import ACCENT, INK, themed_figure, to_svg
from sottovoce.schema import HOP_LENGTH, SAMPLING_RATE, Waveform

_NUM_MEL_BINS = 80
_TICKS_HZ = (400, 1000, 2000, 4000)


def draw_histogram(histogram: Histogram, *, xlabel: str, ylabel: str) -> Markup:
    """Draw bars over the bins, with lines at the median and at the 5th and 95th percentile."""
    from matplotlib.ticker import MaxNLocator  # imported here: see themed_figure

    with themed_figure((9.0, 2.6)) as figure:
        axes = figure.subplots()
        edges = np.asarray(histogram.edges)
        axes.bar(edges[:-1], histogram.counts, width=np.diff(edges) * 0.94, align="edge", color=ACCENT)
        axes.axvline(histogram.median, color=INK, linewidth=1.2)
        for value in (histogram.p5, histogram.p95):
            axes.axvline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
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
    """Draw the log-mel spectrogram that Whisper reads, time in seconds and frequency on the mel axis.

    Args:
        waveform: (S,) float32 in [-1, 1], mono, 16 000 Hz.
        description: text for screen readers.
    """
    num_frames = -(-len(waveform) // HOP_LENGTH)
    plot = log_mel(waveform, num_mel_bins=_NUM_MEL_BINS, num_frames=num_frames)
    filters = mel_filters(_NUM_MEL_BINS)
    hertz_per_column = SAMPLING_RATE / 2 / (filters.shape[1] - 1)  # 40: every tick is a column
    with themed_figure((9.0, 2.0)) as figure:
        axes = figure.subplots()
        extent = (0.0, len(waveform) / SAMPLING_RATE, -0.5, _NUM_MEL_BINS - 0.5)
        axes.imshow(plot, origin="lower", aspect="auto", extent=extent, cmap="magma")
        ticks = [int(filters[:, round(hertz / hertz_per_column)].argmax()) for hertz in _TICKS_HZ]
        axes.set_yticks(ticks, [f"{hertz}" for hertz in _TICKS_HZ])
        axes.set(xlabel="time (s)", ylabel="Hz, mel scale")
        return to_svg(figure, description)
