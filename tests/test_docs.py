"""README and docs cannot rot: commands parse, Python resolves, links lead somewhere, generated parts are up to date."""

import ast
import importlib
import inspect
import re
import shlex
import subprocess
from contextlib import nullcontext
from pathlib import Path, PurePosixPath

import pytest

from docs.generate import all_options, generate, job_groups, settings_tables, tree
from sottovoce.config import Config, load_config

ROOT = Path(__file__).resolve().parent.parent
MAX_README_LINES = 150
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
NEEDED_PAGES = (
    "data", "training", "serving", "models", "cluster", "benchmarks", "limits", "glossary", "architecture", "endurance",
)  # fmt: skip
OPERATORS = re.compile(r"[();<>|&]+")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def code_blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of the given languages, without their fences and their common indentation."""
    return [
        "\n".join(line.removeprefix(indent) for line in body.splitlines())
        for indent, language, body in FENCE.findall(text)
        if language in languages
    ]


def prose_of(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


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
        for index, word in enumerate(command):
            if word.startswith("jobs.") and command[index - 1] == "-m":
                calls.append((word, command[index + 1 :]))
    return calls


def check_options(module_name: str, options: list[str]) -> None:
    """Parse a job's command line as its ``__main__`` would, and run nothing."""
    module = importlib.import_module(module_name)
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module_name]
    (config_class,) = [value for value in own if issubclass(value, Config)]
    with pytest.raises(SystemExit, match="0") if "--help" in options else nullcontext():
        load_config(config_class, options)


def inline_code(text: str) -> list[str]:
    """Code spans outside fenced blocks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose_of(text))


def links(text: str) -> set[str]:
    """Targets of links and images outside fenced blocks, but for addresses with a scheme."""
    prose = re.sub(r"`[^`\n]*`", "", prose_of(text))
    found = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"(?:src|href)=\"([^\"]+)", prose)
    return {target for target in found if not re.match(r"[a-z]+:", target)}


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose_of(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (name := slug if not number else f"{slug}-{number}") in found:
            number += 1
        found.add(name)
    return found


def broken_links(page: str, pages: dict[str, str]) -> list[str]:
    """Links of a page to a file or an anchor that is not there."""
    broken: list[str] = []
    for target in sorted(links(pages[page])):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        name = str(file.resolve().relative_to(ROOT)) if file.resolve().is_relative_to(ROOT) else ""
        if not file.exists() or (anchor and anchor not in anchors(pages.get(name, ""))):
            broken.append(target)
    return broken


def missing_files(text: str) -> list[str]:
    """Code spans that look like files or folders of the checkout and are none."""
    spans = inline_code(text)
    rooted = [
        span for span in spans if re.fullmatch(r"(?:platform|jobs|serve|tests|benchmarks|docs|\.ci)/[\w./-]*", span)
    ]
    modules = [span for span in spans if re.fullmatch(r"[\w/]+\.py", span) and span not in rooted]
    missing = [path for path in rooted if not (ROOT / path).exists()]
    package = ROOT / "platform" / "sottovoce"
    return missing + [path for path in modules if not (package / path).exists() and not (ROOT / path).exists()]


COMMANDS = {page: shell_commands(text) for page, text in PAGES.items()}
CALLS = [(page, *call) for page, commands in COMMANDS.items() for call in job_calls(commands)]


def test_readme_is_short_and_links_every_page() -> None:
    assert len(PAGES["README.md"].splitlines()) <= MAX_README_LINES
    assert {f"docs/{name}.md" for name in NEEDED_PAGES} == {page for page in PAGES if page.startswith("docs/")}
    assert {f"docs/{name}.md" for name in NEEDED_PAGES} <= links(PAGES["README.md"])


def test_readme_shows_both_first_commands_and_the_three_for_own_data() -> None:
    assert {"quickstart", "test"} <= set(make_targets(COMMANDS["README.md"]))
    modules = [module for page, module, _ in CALLS if page == "README.md"]
    assert modules == ["jobs.prepare_manifest", "jobs.train_whisper", "jobs.export_model", "jobs.serve_model"]
    assert sum(command[0] == "curl" for command in COMMANDS["README.md"]) == 1


def test_every_job_is_called_on_some_page() -> None:
    on_disk = {f"jobs.{path.stem}" for path in (ROOT / "jobs").glob("*.py")}
    assert on_disk - {module for _, module, _ in CALLS} <= {"jobs.quickstart"}, "make quickstart calls that one"


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    named = {span.removeprefix("make ").split()[0] for span in inline_code(PAGES[page]) if span.startswith("make ")}
    assert not (set(make_targets(COMMANDS[page])) | named) - known


@pytest.mark.parametrize(
    ("page", "module_name", "options"), CALLS, ids=[" ".join([page, name, *words])[:90] for page, name, words in CALLS]
)
def test_a_job_accepts_its_options(
    page: str, module_name: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    check_options(module_name, options)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_named_in_a_sentence_exists(page: str) -> None:
    named = {span.split()[0] for span in inline_code(PAGES[page]) if span.startswith("--")}
    assert not sorted(named - all_options())


@pytest.mark.parametrize("page", PAGES)
def test_every_recipe_named_in_a_command_exists(page: str) -> None:
    named = {word for command in COMMANDS[page] for word in command if word.startswith("jobs/")}
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_compiles_and_its_imports_resolve(page: str) -> None:
    for block in code_blocks(PAGES[page], "python", "py"):
        for node in ast.walk(ast.parse(block, page)):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = importlib.import_module(node.module)
                assert not [name.name for name in node.names if not hasattr(module, name.name)]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_every_file_leads_somewhere(page: str) -> None:
    assert not broken_links(page, PAGES)
    assert not missing_files(PAGES[page])


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_generated_parts_are_up_to_date(page: str) -> None:
    try:
        assert generate(PAGES[page]) == PAGES[page], "run make docs and commit what it changes"
    except subprocess.CalledProcessError:
        pytest.skip("not a git checkout: nothing says which files belong to the project")


def test_the_pages_have_the_generated_parts_that_are_promised() -> None:
    marks = {
        page: re.findall(r"^<!-- (settings: .+|layers|tree|observation) -->$", text, re.MULTILINE)
        for page, text in PAGES.items()
    }
    assert marks["docs/architecture.md"] == ["layers", "tree"]
    assert marks["docs/training.md"][0] == "settings: jobs.train_whisper training"
    assert marks["docs/data.md"] == ["settings: jobs.prepare_manifest", "settings: jobs.train_whisper data"]
    assert marks["docs/serving.md"] == ["observation", "settings: jobs.serve_model"]
    assert "| `--training.method` | `full` \\| " in PAGES["docs/training.md"]


@pytest.mark.parametrize("job", ["jobs.train_whisper", "jobs.serve_model", "jobs.prepare_manifest"])
def test_tables_name_the_options_that_the_command_line_has(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_options(job, ["--help"])
    shown = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out))
    named = {one.option for group in job_groups(job) for one in group.settings if one.is_option}
    assert named <= shown
    assert {option for option in shown - named if not re.search(r"(?:^--|\.)no-", option)} == {"--help", "--config"}


def test_a_job_without_the_named_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="no settings below 'nothing'"):
        settings_tables("jobs.train_whisper", "nothing")


def test_the_tree_sorts_folders_first_and_leaves_contents_out() -> None:
    files = ["Makefile", "jobs/recipes/a.yaml", "jobs/train_whisper.py", "tests/test_docs.py", "serve/app.py"]
    names = [
        line.split("  ")[0] or line.split()[0] for line in tree([PurePosixPath(one) for one in files]).splitlines()
    ]
    assert names == ["jobs/", "recipes/", "train_whisper.py", "serve/", "app.py", "tests/"]


def test_commands_are_read_through_comments_prompts_continuations_and_pipes() -> None:
    text = (
        "```sh\n$ make check test  # both\nA=1 python -m jobs.one --a 'b c' \\\n  --d e | tee runs/log && ls\n"
        "ray job submit --runtime-env jobs/runtime_env.yaml -- python -m jobs.two --x 1\n```\n"
    )
    commands = shell_commands(text)
    assert make_targets(commands) == ["check", "test"]
    assert job_calls(commands) == [("jobs.one", ["--a", "b c", "--d", "e"]), ("jobs.two", ["--x", "1"])]


def test_links_are_read_from_prose_but_not_from_code_and_addresses() -> None:
    text = '[a](docs/a.md#top) [b](https://x.y/z) ![c](c.png) `[d](d.md)` <img src="e.svg">\n```md\n[f](f.md)\n```\n'
    assert links(text) == {"docs/a.md#top", "c.png", "e.svg"}


def test_anchors_are_those_of_github() -> None:
    text = "# A page\n## To add a ...\n## What `it` answers\n## Twice\n## Twice\n```sh\n# no heading\n```\n"
    assert anchors(text) == {"a-page", "to-add-a-", "what-it-answers", "twice", "twice-1"}


def test_broken_links_and_missing_files_are_found() -> None:
    pages = {"README.md": "[a](#here) [b](#gone) [c](gone.md) [d](LICENSE)\n## Here\n"}
    assert broken_links("README.md", pages) == ["#gone", "gone.md"]
    assert missing_files("`jobs/gone.py` `jobs/recipes` `config.py` `nowhere/gone.py` `runs/x`") == [
        "jobs/gone.py",
        "nowhere/gone.py",
    ]
