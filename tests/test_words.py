"""The words we dropped for the field's: none is left in code, help, tests or documentation, but where it is meant.

Help, errors and settings tables are made from docstrings and strings, so searching the files covers them. The words are
those that cannot be mistaken; the others on the list (place, slot, figures, voices ...) also have honest uses, and
reviewers look after them.
"""

import ast
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
SEARCHED = ("platform/", "serve/", "jobs/", "benchmarks/", "tests/", "docs/")
SEARCHED_FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "cluster.yaml")
SUFFIXES = frozenset({".py", ".md", ".yaml", ".toml", ".j2", ".css", ""})
LEFT_OUT = ("tests/test_words.py", "assets/", "benchmarks/results/")
"""This file; grammars and weights, whose sentences may say anything; results, which are printed and never edited."""

WORDS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "picture": (re.compile(r"picture", re.IGNORECASE), "log-mel spectrogram, plot or screenshot"),
    "overseer": (re.compile(r"overseer", re.IGNORECASE), "pruner"),
    "insist": (re.compile(r"insist", re.IGNORECASE), "retry"),
    "write_whole": (re.compile(r"write_whole|whole_file", re.IGNORECASE), "atomic_write"),
    "Heart": (re.compile(r"\bHeart\b(?=[\s:.(),\]\[`|=]|$)|(?<![a-z])Heart(?=[A-Z])"), "Heartbeat"),
    "Pulse": (re.compile(r"\bPulse(?:s|[A-Z]\w*)?\b"), "Heartbeat"),
    "hearing": (re.compile(r"(?<![a-z])hearings?(?![a-z])", re.IGNORECASE), "transcription, or reading"),
}
"""What to look for, and what to write in its place."""

OPENING = re.compile(r"(?:Gives?|Tells?)\b")
"""How no docstring begins: Return, Compute or Whether says it."""


@dataclass(frozen=True)
class Allowed:
    """A place where a word is meant."""

    word: str
    path: str
    """The file, or a folder with its slash."""
    text: str
    """Part of the line."""
    reason: str


ALLOWED: tuple[Allowed, ...] = ()
"""Each with its reason; one that allows nothing any more fails."""


@dataclass(frozen=True)
class Found:
    """A word in a file."""

    word: str
    path: str
    number: int
    line: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.word!r} ({WORDS[self.word][1]}): {self.line.strip()[:100]}"


def searched_files() -> list[PurePosixPath]:
    """Every file git tracks that is searched and still on disk, relative to the root."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    paths = [PurePosixPath(name) for name in listing.stdout.decode().split("\0") if name]
    kept = [path for path in paths if str(path).startswith(SEARCHED) or str(path) in SEARCHED_FILES]
    kept = [path for path in kept if path.suffix in SUFFIXES and not any(part in str(path) for part in LEFT_OUT)]
    return [path for path in kept if (ROOT / path).is_file()]


def find_words(path: str, text: str) -> Iterator[Found]:
    """Each dropped word in a file and in its own name, once a line."""
    for number, line in enumerate([path, *text.splitlines()]):
        for word, (pattern, _) in WORDS.items():
            if pattern.search(line):
                yield Found(word, path, number, line)


def is_allowed(found: Found, allowed: tuple[Allowed, ...]) -> bool:
    return any(one.word == found.word and found.path.startswith(one.path) and one.text in found.line for one in allowed)


def badly_opened(source: str) -> list[int]:
    """Lines of docstrings that open with Give or Tell: of modules, classes, functions and attributes."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and OPENING.match(node.value.value.lstrip())
    ]


def all_found() -> list[Found]:
    files = searched_files()
    assert len(files) > len(SEARCHED)
    texts = {str(path): (ROOT / path).read_text(encoding="utf-8") for path in files}
    return [found for path, text in texts.items() for found in find_words(path, text)]


def test_no_dropped_word_is_left() -> None:
    left = [str(found) for found in all_found() if not is_allowed(found, ALLOWED)]
    if left:
        pytest.fail(f"{len(left)} lines:\n" + "\n".join(left), pytrace=False)


def test_everything_allowed_is_there_and_has_a_reason() -> None:
    found = all_found()
    assert not [one for one in ALLOWED if not one.reason.strip()]
    assert not [one for one in ALLOWED if not any(is_allowed(each, (one,)) for each in found)]


def test_no_docstring_opens_with_give_or_tell() -> None:
    modules = [path for path in searched_files() if path.suffix == ".py"]
    assert modules
    left = [f"{path}:{line}" for path in modules for line in badly_opened((ROOT / path).read_text(encoding="utf-8"))]
    if left:
        pytest.fail(f"{len(left)} docstrings:\n" + "\n".join(sorted(left)), pytrace=False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("def draw(picture: LogMel) -> None:", ["picture"]),
        ("class ThreadedPictures:", ["picture"]),
        ("from sottovoce.train.overseer import start_overseer", ["overseer"]),
        ("with insist(read, location):", ["insist"]),
        ("answer = await _insist(call)", ["insist"]),
        ("write_whole(path, text)", ["write_whole"]),
        ("from sottovoce.train.whole_file import read", ["write_whole"]),
        ("def __init__(self, heart: Heart) -> None:", ["Heart"]),
        ("board = PulseBoard(Pulse(beat))", ["Pulse"]),
        ("class Hearing:", ["hearing"]),
        ("self._hearing = hearing", ["hearing"]),
    ],
)
def test_dropped_words_are_found(line: str, words: list[str]) -> None:
    assert [found.word for found in find_words("a.py", line)] == words


@pytest.mark.parametrize(
    "line",
    [
        "class Heartbeat:",
        "learns the training speech by heart.",
        "│ The heart is swollen on Tomography.  │",
        "the figures consist of sums that persist",
        "shearing, and rehearing of impulses",
        "log_mel_spectrogram(waveform)",
    ],
)
def test_other_words_are_left_alone(line: str) -> None:
    assert not list(find_words("a.py", line))


def test_openings_are_found_in_every_kind_of_docstring() -> None:
    source = (
        '"""Give a module."""\nclass A:\n    """Tell a class."""\n    b: int = 0\n    """Gives a field."""\n'
        '    def c(self):\n        """Tells a method."""\n        return "Give me"\n'
        'def d():\n    """Return what is given, and tell nobody."""\ndef e():\n    """Given: a fact."""\n'
    )
    assert sorted(badly_opened(source)) == [1, 3, 5, 7]


def test_a_word_is_allowed_only_where_its_entry_says() -> None:
    allowed = (Allowed("picture", "docs/", "<picture>", "an HTML element"),)
    assert is_allowed(Found("picture", "docs/a.md", 3, "<picture>"), allowed)
    assert not is_allowed(Found("picture", "docs/a.md", 3, "a picture"), allowed)
    assert not is_allowed(Found("picture", "jobs/a.py", 3, "<picture>"), allowed)
    assert not is_allowed(Found("hearing", "docs/a.md", 3, "<picture> hearing"), allowed)
