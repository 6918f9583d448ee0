"""The budget of each group of tests: printed at the end of its run with the slowest tests, and enforced in CI.

The seconds are in ``pyproject.toml`` under ``tool.sottovoce.test-budget``; ``--budget GROUP`` names the running group.
They hold for two quiet cores. Over budget, every run warns and names the slowest tests; with ``CI`` set it
fails above the budget times ``ci-slack``, since a shared machine may be that much slower.
"""

import os
import time
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

NUM_SLOWEST = 10


@dataclass(frozen=True)
class Verdict:
    """The report at the end of a run."""

    lines: tuple[str, ...]
    fails: bool


def judge(
    group: str,
    *,
    seconds: float,
    budget_s: float | None,
    durations_s: Mapping[str, float],
    is_ci: bool,
    ci_slack: float = 1.0,
) -> Verdict:
    """Compare a run with its budget.

    Args:
        group: its name; nothing where no group was named.
        seconds: the run took, collection included.
        budget_s: it may take; None where nothing limits it.
        durations_s: of each test by its id, fixtures included.
        is_ci: the run fails above the budget times ``ci_slack``.
        ci_slack: at least 1.
    """
    slowest = sorted(durations_s.items(), key=lambda item: -item[1])[:NUM_SLOWEST]
    lines = [f"{duration_s:7.1f} s  {name}" for name, duration_s in slowest]
    if budget_s is None:
        return Verdict((f"{seconds:.0f} s; the slowest tests:", *lines), fails=False)
    limit_s = budget_s * ci_slack
    head = f"{group}: {seconds:.0f} s of {budget_s:.0f} s"
    if seconds > budget_s:
        head += (
            f": OVER BUDGET (CI fails above {limit_s:.0f} s); make one of these faster, or move what only endurance "
            "shows to make endurance"
        )
    return Verdict((head, *lines), fails=seconds > limit_s and is_ci)


def read_budget(config: pytest.Config, group: str) -> tuple[float, float]:
    """Read a group's seconds, and the slack of CI.

    Raises:
        pytest.UsageError: there is no such group.
    """
    tables = tomllib.loads((config.rootpath / "pyproject.toml").read_text(encoding="utf-8"))
    seconds: dict[str, float] = tables["tool"]["sottovoce"]["test-budget"]
    if group not in seconds:
        raise pytest.UsageError(f"--budget {group}: pyproject.toml knows {', '.join(seconds)}")
    return seconds[group], seconds.get("ci-slack", 1.0)


class BudgetPlugin:
    """Measures a run; with xdist it stands in the process that hands out the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._group = str(config.getoption("budget") or "")
        self._budget_s, self._ci_slack = read_budget(config, self._group) if self._group else (None, 1.0)
        self._started = time.monotonic()
        self._durations_s: Counter[str] = Counter()
        self._verdict = Verdict((), fails=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up set-up, call and teardown of a test."""
        self._durations_s[report.nodeid] += report.duration  # type: ignore[assignment]  # seconds, not a count

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge the run."""
        self._verdict = judge(
            self._group,
            seconds=time.monotonic() - self._started,
            budget_s=self._budget_s,
            durations_s=self._durations_s,
            is_ci=bool(os.environ.get("CI")),
            ci_slack=self._ci_slack,
        )
        if self._verdict.fails and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the report."""
        terminalreporter.section("time")
        for line in self._verdict.lines:
            terminalreporter.write_line(line)


def add_option(parser: pytest.Parser) -> None:
    """Add ``--budget``."""
    parser.addoption("--budget", metavar="GROUP", help="see tests/support/budget.py")


def register(config: pytest.Config) -> None:
    """Measure this run, unless it is a worker of xdist."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(BudgetPlugin(config), "budget")
