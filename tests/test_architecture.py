"""The table "To add a ..." of docs/architecture.md holds: its files exist, and entries are named in no other file."""

import re
from pathlib import Path

import pytest

from serve.gateway import ROUTES, Gateway
from sottovoce.data.corpora.read import LAYOUTS
from sottovoce.model.variants import FORMATS
from sottovoce.train.evaluation import VALIDATION_METRICS
from sottovoce.train.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
TABLES = {
    "FORMATS": FORMATS,
    "LAYOUTS": LAYOUTS,
    "METHODS": METHODS,
    "VALIDATION_METRICS": VALIDATION_METRICS,
    "ROUTES": {route.path: route for route in ROUTES},
}
MAX_TOUCHED = 3

NAMED_AS_DEFAULT = {
    "int8": {"serve/settings.py", "platform/sottovoce/tune/context_plan.py"},
    "adapt_context": {"platform/sottovoce/tune/adaptation.py"},
    "full": {"platform/sottovoce/train/config.py"},
    "lora": {"platform/sottovoce/tune/space.py"},
}
"""Files that choose one entry as the default of a setting; a new entry does not touch them."""

OTHER_MEANINGS = {"fp32", "full", "lora", "torch", "wer", "cer"}
"""Names that also mean something else in the code: a precision, a scale, a part of the settings, a package, a rate."""


def rows() -> list[tuple[str, list[str], list[str], str]]:
    """What is added, the new files, the existing files, the table's name."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## To add a ...")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| a")]
    return [
        (what.strip(), re.findall(r"`([^`]+)`", new), re.findall(r"`([^`]+)`", touched), table.strip(" `"))
        for what, new, touched, table in cells
    ]


ROWS = rows()


def test_every_table_of_the_code_has_its_row() -> None:
    assert {table for _, _, _, table in ROWS} == set(TABLES)


@pytest.mark.parametrize(("what", "new", "touched", "table"), ROWS, ids=[row[0] for row in ROWS])
def test_at_most_three_existing_files_are_touched(what: str, new: list[str], touched: list[str], table: str) -> None:
    assert 0 < len(touched) <= MAX_TOUCHED
    assert not [path for path in touched if not (ROOT / path).is_file()]
    assert not [path for path in new if not (ROOT / path).parent.is_dir()]
    assert re.search(rf"^{table}\b", (ROOT / touched[0]).read_text(encoding="utf-8"), re.MULTILINE), f"no {table} there"


@pytest.mark.parametrize(("what", "new", "touched", "table"), ROWS, ids=[row[0] for row in ROWS])
def test_no_other_file_names_an_entry(what: str, new: list[str], touched: list[str], table: str) -> None:
    sources = [path for folder in ("platform", "serve", "jobs") for path in (ROOT / folder).rglob("*.py")]
    names = set(TABLES[table]) - OTHER_MEANINGS
    assert sources
    own_folders = {str(Path(path).parent) for path in new}
    found: dict[str, set[str]] = {}
    for path in sources:
        file, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        if file in touched or str(Path(file).parent) in own_folders:
            continue
        for name in names:
            if f'"{name}"' in text and file not in NAMED_AS_DEFAULT.get(name, ()):
                found.setdefault(name, set()).add(file)
    assert not found


def test_every_route_has_its_handler_and_is_served_once() -> None:
    assert all(callable(getattr(Gateway, route.handler)) for route in ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_no_folder_has_more_than_fifteen_modules() -> None:
    folders = [
        folder
        for package in ("platform/sottovoce", "serve")
        for folder in [ROOT / package, *(ROOT / package).rglob("*/")]
    ]
    modules = {folder: [path for path in folder.glob("*.py") if path.name != "__init__.py"] for folder in folders}
    assert sum(map(len, modules.values())) > 200
    assert {folder.name: len(found) for folder, found in modules.items() if len(found) > 15} == {}
