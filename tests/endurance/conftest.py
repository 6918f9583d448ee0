"""Writes what each file of endurance tests showed: outcome, seconds, date and machine."""

from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.common import Row, write_result

_results: dict[str, list[Row]] = defaultdict(list)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    report: pytest.TestReport = yield
    if report.when == "call" or not report.passed:
        measured = dict(item.user_properties)
        row: Row = {"test": item.name, "outcome": report.outcome, "seconds": round(report.duration, 1), **measured}
        _results[item.path.stem.removeprefix("test_")].append(row)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = session.config.getoption("endurance_results")
    if folder:
        for name, rows in _results.items():
            write_result(Path(folder) / f"{name}.json", f"tests/endurance/test_{name}.py", rows)
