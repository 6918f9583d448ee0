"""README cannot rot: its make targets exist, its jobs' options parse, its Python compiles, its links lead somewhere."""

import importlib
import inspect
import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest

from sottovoce.config import Config, load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATORS = re.compile(r"[();<>|&]+")


def code_blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of the given languages, without their fences and their common indentation."""
    found = re.findall(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [
        "\n".join(line.removeprefix(indent) for line in body.splitlines())
        for indent, language, body in found
        if language in languages
    ]


def shell_commands(text: str) -> list[list[str]]:
    """Every simple command of the shell blocks as words; comments, prompts and redirections are gone."""
    commands: list[list[str]] = []
    for block in code_blocks(text, "sh", "bash", "shell", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            commands.append([])
            for word in lexer:
                if OPERATORS.fullmatch(word):
                    commands.append([])
                else:
                    commands[-1].append(word)
    return [command for command in commands if command]


def make_targets(commands: list[list[str]]) -> list[str]:
    return [
        word
        for command in commands
        if "make" in command
        for word in command[command.index("make") + 1 :]
        if not word.startswith("-") and "=" not in word
    ]


def job_calls(commands: list[list[str]]) -> list[tuple[str, list[str]]]:
    """(module, options) of every ``python -m jobs.x ...``, alone or behind ``ray job submit ... --``."""
    calls: list[tuple[str, list[str]]] = []
    for command in commands:
        for place, word in enumerate(command):
            if word.startswith("jobs.") and command[place - 1] == "-m":
                calls.append((word, command[place + 1 :]))
    return calls


def parse_job(module_name: str, options: list[str]) -> None:
    """Parse a job's command line as its ``__main__`` would, and run nothing."""
    module = importlib.import_module(module_name)
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module_name]
    (config_class,) = [value for value in own if issubclass(value, Config)]
    with pytest.raises(SystemExit, match="0") if "--help" in options else nullcontext():
        load_config(config_class, options)


def relative_paths(text: str) -> set[str]:
    """Link and spectrogram targets, and code spans that begin with one of the checkout's own folders."""
    prose = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose) + re.findall(r"(?:src|href)=\"([^\"#]+)", prose)
    spans = re.findall(r"`((?:platform|jobs|serve|tests|benchmarks|\.ci)/[\w./-]*)`", prose)
    return {path for path in links + spans if not re.match(r"[a-z]+:", path)}


COMMANDS = shell_commands(README)
CALLS = job_calls(COMMANDS)


def test_readme_shows_both_first_commands_and_some_jobs() -> None:
    assert {"quickstart", "test"} <= set(make_targets(COMMANDS))
    assert CALLS


def test_every_make_target_in_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    assert not set(make_targets(COMMANDS)) - known


@pytest.mark.parametrize(
    ("module_name", "options"), CALLS, ids=[" ".join([name, *words])[:70] for name, words in CALLS]
)
def test_a_job_in_readme_accepts_its_options(
    module_name: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    parse_job(module_name, options)


def test_every_python_block_in_readme_compiles() -> None:
    for block in code_blocks(README, "python", "py"):
        compile(block, "README.md", "exec")


def test_every_relative_path_in_readme_leads_somewhere() -> None:
    paths = {path for path in relative_paths(README) if not path.removeprefix("./").startswith("runs/")}
    assert not sorted(path for path in paths if not (ROOT / path).exists())


def test_commands_are_read_through_comments_prompts_continuations_and_pipes() -> None:
    text = (
        "```sh\n$ make check test  # both\nA=1 python -m jobs.one --a 'b c' \\\n  --d e | tee runs/log && ls\n"
        "ray job submit --runtime-env jobs/runtime_env.yaml -- python -m jobs.two --x 1\n```\n"
    )
    commands = shell_commands(text)
    assert make_targets(commands) == ["check", "test"]
    assert job_calls(commands) == [("jobs.one", ["--a", "b c", "--d", "e"]), ("jobs.two", ["--x", "1"])]


def test_paths_are_read_from_links_and_code_spans_but_not_from_addresses() -> None:
    text = '[a](docs/a.md#top) [b](https://x.y/z) ![c](c.png) `jobs/recipes` `openai/whisper-tiny` <img src="d.svg">'
    assert relative_paths(text) == {"docs/a.md", "c.png", "jobs/recipes", "d.svg"}
