"""Plots for HTML pages: SVG with the page's own text, lines and colours, in light and in dark mode."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Placeholder colours that no plot uses; to_svg replaces them by those of the page's style.
INK = "#010203"
"""Colour of text and axes."""
ACCENT = "#040506"
"""Colour of bars, and of a single line."""
SERIES = ("#070809", "#0a0b0c", "#0d0e0f", "#101112")
"""Colours of several lines in one plot."""

_IN_PAGE = {
    INK: "currentColor",
    ACCENT: "var(--accent, #2f6fb0)",
    SERIES[0]: "var(--series-1, #1f77b4)",
    SERIES[1]: "var(--series-2, #d96a00)",
    SERIES[2]: "var(--series-3, #c8322f)",
    SERIES[3]: "var(--series-4, #7d55b5)",
}


@contextmanager
def themed_figure(size_inches: tuple[float, float]) -> Iterator["Figure"]:
    """Open a figure in the page's colours, with text kept as text. Call ``to_svg`` inside, for reproducible bytes."""
    # Imported here: Ray workers import this package without drawing.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "sottovoce",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
        }
    )
    with settings:
        yield Figure(figsize=size_inches, layout="constrained")


def to_svg(figure: "Figure", description: str) -> Markup:
    """Convert a figure to inline SVG; ``description`` is its text for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, color in _IN_PAGE.items():
        svg = svg.replace(stand_in, color)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1))
