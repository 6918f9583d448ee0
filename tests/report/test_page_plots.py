import xml.etree.ElementTree as ET

from markupsafe import Markup

from sottovoce.report.svg import ACCENT, INK, SERIES, themed_figure, to_svg


def draw(description: str) -> Markup:
    with themed_figure((4.0, 2.0)) as figure:
        axes = figure.subplots()
        for height, color in enumerate((INK, ACCENT, *SERIES)):
            axes.plot([0, 1], [height, height + 1], color=color)
        axes.set(xlabel="step")
        return to_svg(figure, description)


def test_every_stand_in_becomes_a_colour_of_the_page() -> None:
    svg = draw("lines")
    assert not [color for color in (INK, ACCENT, *SERIES) if color in svg]
    for variable in ("currentColor", "var(--accent", "var(--series-1", "var(--series-4"):
        assert variable in svg


def test_words_stay_text_and_the_description_is_escaped() -> None:
    root = ET.fromstring(draw('a "line" & <more>'))
    assert root.get("aria-label") == 'a "line" & <more>'
    assert root.get("role") == "img"
    assert "step" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_same_plot_has_the_same_bytes() -> None:
    assert draw("x") == draw("x")
