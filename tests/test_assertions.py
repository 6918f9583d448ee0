"""Every test asserts something: one that only runs code passes whatever the code does."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
INSTALLED = {".venv", "node_modules"}
"""Folders that `make test-clients` fills with the work of others."""
HELPERS = ("assert_", "check_", "expect_")
"""How a helper begins that asserts on behalf of a test."""
EXPECTATIONS = ("raises", "warns", "fail", "deprecated_call")
"""Of pytest."""


def asserts(node: ast.AST) -> bool:
    """Whether a statement, or a call of pytest's or of a helper, can fail a test."""
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        is_pytests = isinstance(node.func.value, ast.Name) and node.func.value.id == "pytest"
        return node.func.attr.startswith(HELPERS) or (is_pytests and node.func.attr in EXPECTATIONS)
    return isinstance(node.func, ast.Name) and node.func.id.startswith(HELPERS)


def find_tests_without_assertion(source: str) -> list[str]:
    """Names of a file's test functions in which nothing can fail but the code itself."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return [
        function.name
        for function in functions
        if function.name.startswith("test_") and not any(map(asserts, ast.walk(function)))
    ]


def test_every_test_asserts_something() -> None:
    files = [path for path in sorted(TESTS.rglob("test_*.py")) if not INSTALLED.intersection(path.parts)]
    assert files
    found = {
        str(path.relative_to(TESTS)): names
        for path in files
        if (names := find_tests_without_assertion(path.read_text(encoding="utf-8")))
    }
    assert found == {}, f"assert something there, or call a helper whose name begins with one of {HELPERS}"


@pytest.mark.parametrize(
    "body",
    ["assert f()", "with pytest.raises(ValueError): f()", "assert_close(f(), 1)", "x.check_all()", "pytest.fail('no')"],
)
def test_assertions_are_found(body: str) -> None:
    assert find_tests_without_assertion(f"def test_it():\n    {body}\n") == []


@pytest.mark.parametrize("body", ["f()", "raises(f())", "x.fail()", "compare(f(), 1)"])
def test_what_asserts_nothing_is_found(body: str) -> None:
    assert find_tests_without_assertion(f"def test_it():\n    {body}\n") == ["test_it"]
