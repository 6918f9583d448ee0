"""Where a page's template finds the frame and the style that all pages share, and the filters it writes numbers with.

A page is one file that holds all it shows: no script, nothing fetched, which its own policy forbids besides.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

NARROW_SPACE = "\u202f"
"""Between the thousands, and where a line must not break."""


def load_template(name: str, *, package: str, folder: str) -> "Template":
    """Load a page's template; it extends ``frame.html.j2``, and may import the macros in ``parts.html.j2``.

    Args:
        name: the template's file.
        package: dotted name of the package that brings it.
        folder: where in that package it lies.
    """
    # Imported here: Ray workers import packages that also write pages, and write none.
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, folder), PackageLoader("sottovoce", "report")]),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment.get_template(name)


def format_count(number: int) -> str:
    """Give a whole number, its thousands apart."""
    return f"{number:,}".replace(",", NARROW_SPACE)


def format_percent(fraction: float) -> str:
    """Give a fraction in percent."""
    return f"{100 * fraction:.1f} %"


def format_hours(hours: float) -> str:
    """Give hours to three digits, and minutes or seconds where they are few."""
    if hours >= 1:
        return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h".replace(",", NARROW_SPACE)
    minutes = 60 * hours
    return f"{minutes:.1f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"


def format_words(name: str) -> str:
    """Give the words of a name in code."""
    return name.replace("_", " ")


def shorten(text: str, length: int = 160) -> str:
    """Cut a text that is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


_FILTERS: Mapping[str, Callable[..., str]] = {
    "hours": format_hours,
    "count": format_count,
    "percent": format_percent,
    "words": format_words,
    "shorten": shorten,
}
