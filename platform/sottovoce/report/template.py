"""Load the templates of pages with the shared frame and style, and format numbers for them.

A page is one self-contained file: no requests, and no script but one that its content security policy names by hash.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

NARROW_SPACE = "\u202f"
"""Separates thousands, and prevents line breaks."""


def load_template(name: str, *, package: str, folder: str) -> "Template":
    """Load a page's template; it extends ``frame.html.j2``, and may import the macros in ``parts.html.j2``.

    Args:
        name: the template's file.
        package: dotted name of the package that contains it.
        folder: its folder in that package.
    """
    # Imported here: Ray workers import this package without writing pages.
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
    """Format a whole number with separated thousands."""
    return f"{number:,}".replace(",", NARROW_SPACE)


def format_percent(fraction: float) -> str:
    """Format a fraction in percent."""
    return f"{100 * fraction:.1f} %"


def format_hours(hours: float) -> str:
    """Format hours with three digits; short times in minutes or seconds."""
    if hours >= 1:
        return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h".replace(",", NARROW_SPACE)
    minutes = 60 * hours
    return f"{minutes:.1f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"


def format_words(name: str) -> str:
    """Replace the underscores of a name by spaces."""
    return name.replace("_", " ")


def shorten(text: str, length: int = 160) -> str:
    """Cut a text at ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


_FILTERS: Mapping[str, Callable[..., str]] = {
    "hours": format_hours,
    "count": format_count,
    "percent": format_percent,
    "words": format_words,
    "shorten": shorten,
}
