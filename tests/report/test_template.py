from importlib import resources
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from sottovoce.report.template import format_count, format_hours, format_percent, format_words, load_template, shorten


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that brings one page."""
    folder = tmp_path / "a_package_with_a_page"
    (folder / "pages").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "pages" / "one.html.j2").write_text(
        '{% extends "frame.html.j2" %}{% import "parts.html.j2" as parts %}{% block title %}{{ name }}{% endblock %}'
        "{% block header %}{{ parts.tile(number | count, name) }}{% endblock %}"
        "{% block main %}{% call parts.notice(name) %}<li>{{ name }}</li>{% endcall %}{% endblock %}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_a_page_gets_the_frame_the_style_and_the_policy_against_scripts_and_network(package: str) -> None:
    page = load_template("one.html.j2", package=package, folder="pages").render(name="A page", number=12_345)
    assert page.startswith("<!doctype html>")
    assert "<title>A page</title>" in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "12\u202f345" in page
    assert "<script" not in page


def test_what_a_page_is_given_is_escaped_also_in_shared_parts(package: str) -> None:
    page = load_template("one.html.j2", package=package, folder="pages").render(name="<script>", number=1)
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 4


def test_a_value_that_is_missing_is_an_error_and_not_a_gap(package: str) -> None:
    with pytest.raises(UndefinedError, match="name"):
        load_template("one.html.j2", package=package, folder="pages").render(number=1)


def test_frame_style_and_parts_are_part_of_the_package() -> None:
    files = {file.name for file in resources.files("sottovoce.report").iterdir()}
    assert {"frame.html.j2", "parts.html.j2", "style.css"} <= files


@pytest.mark.parametrize(
    ("hours", "text"), [(12_345.6, "12\u202f346 h"), (12.34, "12.3 h"), (0.5, "30.0 min"), (0.002, "7 s"), (0.0, "0 s")]
)
def test_hours_are_given_in_what_a_person_would_say(hours: float, text: str) -> None:
    assert format_hours(hours) == text


def test_numbers_and_names_are_written_for_people() -> None:
    assert format_count(1_234_567) == "1\u202f234\u202f567"
    assert format_percent(0.1234) == "12.3 %"
    assert format_words("speaker_leakage") == "speaker leakage"
    assert shorten("a" * 10, 5) == "aaaa…"
    assert shorten("short") == "short"
