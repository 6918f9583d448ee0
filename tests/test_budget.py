"""The plugin that keeps the tests' time: what it says, and that CI fails where a group takes too long."""

import budget
import pytest

pytest_plugins = ["pytester"]

DURATIONS_S = {f"test_{number}": float(number) for number in range(12)}


def test_a_run_within_its_budget_names_the_ten_slowest_and_passes() -> None:
    verdict = budget.judge("slow", seconds=99.0, budget_s=100.0, durations_s=DURATIONS_S, is_ci=True)
    assert not verdict.fails
    assert verdict.lines[0] == "slow: 99 s of 100 s"
    assert [line.split()[-1] for line in verdict.lines[1:]] == [f"test_{number}" for number in range(11, 1, -1)]


@pytest.mark.parametrize("is_ci", [True, False])
def test_a_run_over_its_budget_fails_in_ci_and_warns_elsewhere(is_ci: bool) -> None:
    verdict = budget.judge("slow", seconds=101.0, budget_s=100.0, durations_s=DURATIONS_S, is_ci=is_ci)
    assert verdict.fails is is_ci
    assert "OVER BUDGET" in verdict.lines[0]


def test_ci_fails_only_above_its_slack_and_every_run_over_budget_warns() -> None:
    verdicts = [
        budget.judge("slow", seconds=seconds, budget_s=100.0, durations_s=DURATIONS_S, is_ci=True, ci_slack=2.0)
        for seconds in (150.0, 201.0)
    ]
    assert [verdict.fails for verdict in verdicts] == [False, True]
    assert all("OVER BUDGET (CI fails above 200 s)" in verdict.lines[0] for verdict in verdicts)


def test_a_run_without_a_group_has_no_budget() -> None:
    verdict = budget.judge("", seconds=1e6, budget_s=None, durations_s=DURATIONS_S, is_ci=True)
    assert not verdict.fails
    assert len(verdict.lines) == 11


@pytest.mark.parametrize(("seconds", "ci", "code"), [(0.0, "true", 1), (0.0, "", 0), (1000.0, "true", 0)])
def test_a_real_run_ends_with_the_verdict(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, seconds: float, ci: str, code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n[tool.sottovoce.test-budget]\nfast = {seconds}\n")
    pytester.makeconftest("import budget\npytest_addoption, pytest_configure = budget.add_option, budget.register\n")
    pytester.makepyfile("def test_one(): assert True")
    result = pytester.runpytest_inprocess("--budget", "fast", "-p", "no:schemathesis")
    assert result.ret == code
    result.stdout.fnmatch_lines(["fast: * s of * s*", "*test_a_real_run*::test_one"])


def test_an_unknown_group_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\n[tool.sottovoce.test-budget]\nfast = 1\n")
    pytester.makeconftest("import budget\npytest_addoption, pytest_configure = budget.add_option, budget.register\n")
    result = pytester.runpytest_inprocess("--budget", "fsat", "-p", "no:schemathesis")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pyproject.toml knows fast"])
