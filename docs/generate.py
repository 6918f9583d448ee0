"""Write the generated parts of docs/*.md: settings, layers and the tree. ``python -m docs.generate``, or ``make docs``.

A generated part stands between two comments, and whatever is between them is replaced:

- ``<!-- settings: jobs.train_whisper training -->`` ... ``<!-- /settings -->``: one table for the part ``training`` of
  that job's Config and one for each part inside it. Without a part: the whole job.
- ``<!-- layers -->`` ... ``<!-- /layers -->``: the layers of pyproject.toml, the highest first, with what each package
  says of itself.
- ``<!-- tree -->`` ... ``<!-- /tree -->``: all folders and Python modules that git tracks, each with the first line of
  its docstring.
- ``<!-- observation -->`` ... ``<!-- /observation -->``: the service's metrics and the fields of its request line.
"""

import argparse
import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError

from serve.observe.metrics import METRICS
from serve.observe.request_log import RequestLine
from sottovoce.config import Config

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

_TREE_WIDTH = 40  # columns before the text, where the name leaves that room
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_LEFT_OUT = (
    "tests/",
    "platform/sottovoce/assets/micro/",
    "platform/sottovoce/demo/assets/",
    "docs/images/",
    "benchmarks/results/",
)
"""Folders of which the tree names only the folder itself."""
_TEXTS = {
    ".ci/": "what CI runs",
    "benchmarks/": "measurements, beside peers where there are any",
    "benchmarks/results/": "what they printed, unedited",
    "docs/": "what the README links to",
    "docs/images/": "screenshots",
    "jobs/": "entry points: one Config and one main per file",
    "jobs/recipes/": "settings of full runs, read with --config",
    "platform/": "a folder on the path, never a package",
    "platform/sottovoce/assets/micro/": "the embedded base model",
    "platform/sottovoce/demo/assets/": "grammars and templates",
    "serve/": "the service",
    "tests/": "mirrors the package; integration/ starts Ray or a server",
}
"""What folders hold that have no ``__init__.py`` to say it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of a settings table."""

    name: str
    """Dotted path as in a recipe: ``training.learning_rate``."""
    kind: str
    default: str
    meaning: str
    is_option: bool
    """Whether the command line has it; a list of parts exists in YAML only."""

    @property
    def option(self) -> str:
        """Name on the command line, or in a recipe where the command line has none."""
        return f"--{self.name.replace('_', '-')}" if self.is_option else self.name


@dataclass(frozen=True, kw_only=True)
class Group:
    """The settings of one Config, without those of the Configs inside it."""

    name: str
    """Dotted path; empty for a job's own settings."""
    meaning: str
    settings: tuple[Setting, ...]


def main() -> None:
    """Rewrite the pages, or only report those that are out of date (``--check``)."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(main))
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page would change")
    is_check = parser.parse_args().check
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
    changed = {page: new for page, old in pages.items() if (new := generate(old)) != old}
    for page, text in changed.items():
        sys.stdout.write(f"{page.relative_to(ROOT)} {'is out of date' if is_check else 'rewritten'}\n")
        if not is_check:
            page.write_text(text, encoding="utf-8")
    sys.exit(bool(changed) and is_check)


def generate(text: str) -> str:
    """Return a page with its generated parts written anew."""
    text = re.sub(
        r"(<!-- settings: (jobs\.\w+) ?([\w.]*) -->\n).*?(<!-- /settings -->)",
        lambda found: found[1] + settings_tables(found[2], found[3]) + found[4],
        text,
        flags=re.DOTALL,
    )
    text = re.sub(
        r"(<!-- layers -->\n).*?(<!-- /layers -->)",
        lambda found: found[1] + layers_table() + found[2],
        text,
        flags=re.DOTALL,
    )
    text = re.sub(
        r"(<!-- observation -->\n).*?(<!-- /observation -->)",
        lambda found: found[1] + observation_table() + found[2],
        text,
        flags=re.DOTALL,
    )
    return re.sub(
        r"(<!-- tree -->\n).*?(<!-- /tree -->)",
        lambda found: found[1] + "```text\n" + tree(tracked_files()) + "```\n" + found[2],
        text,
        flags=re.DOTALL,
    )


def observation_table() -> str:
    """Return one Markdown table of what the service shows: each metric, then each field of a request's log line."""
    rows = [(f"`{one.shown_name}`", one.kind, ", ".join(one.labels), one.meaning) for one in METRICS]
    rows += [
        (f"`{name}`", "log field", "", _plain(field.description or ""))
        for name, field in RequestLine.model_fields.items()
    ]
    lines = [f"| {' | '.join(cell or ' ' for cell in row)} |".replace("|   |", "| |") for row in rows]
    return "\n".join(["| name | kind | labels | meaning |", "|---|---|---|---|", *lines]) + "\n"


# Settings


def settings_tables(job: str, part: str) -> str:
    """Return Markdown tables of a job's settings: those of a part and of the parts inside it, or of the whole job.

    Raises:
        ValueError: the job has no such part.
    """
    groups = [group for group in job_groups(job) if not part or f"{group.name}.".startswith(f"{part}.")]
    if not groups:
        raise ValueError(f"{job} has no settings below {part!r}")
    return "\n".join(_table(group) for group in groups) + "\n"


def job_groups(job: str) -> list[Group]:
    """Return the settings of the one Config that a job's module defines, outermost first."""
    module = importlib.import_module(job)
    (config,) = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Config) and value.__module__ == job
    ]
    merged: dict[str, Group] = {}
    for found in _groups(config, prefix="", meaning="", defaults=None):
        group, before = found, merged.get(found.name)  # a flattened part belongs to the table of what is around it
        if before is not None:
            text = before.meaning or group.meaning
            group = replace(before, meaning=text, settings=before.settings + group.settings)
        merged[group.name] = group
    return list(merged.values())


def all_options() -> frozenset[str]:
    """Return every option of every job, in both forms where it is a switch."""
    jobs = sorted(f"jobs.{path.stem}" for path in (ROOT / "jobs").glob("*.py"))
    settings = [one for job in jobs for group in job_groups(job) for one in group.settings if one.is_option]
    switched_off = {f"--{_negate(one.option[2:])}" for one in settings if one.kind == "switch"}
    return frozenset({one.option for one in settings} | switched_off | {"--config", "--help"})


def _negate(option: str) -> str:
    """Return the option that switches another off: ``a.b`` becomes ``a.no-b``."""
    part, dot, name = option.rpartition(".")
    return f"{part}{dot}no-{name}"


def _groups(config: type[Config], *, prefix: str, meaning: str, defaults: Config | None) -> Iterator[Group]:
    """Walk a Config. ``defaults`` is the instance that its parent has as default, where there is one."""
    settings: list[Setting] = []
    inner: list[Iterator[Group]] = []
    for name, field in config.model_fields.items():
        default = getattr(defaults, name) if defaults is not None else field.get_default(call_default_factory=True)
        path = prefix if _is_flattened(field) else f"{prefix}.{name}".lstrip(".")
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Config):
            own = default if isinstance(default, Config) else None
            text = field.description or inspect.getdoc(field.annotation) or ""
            inner.append(_groups(field.annotation, prefix=path, meaning=text, defaults=own))
            continue
        if (part := _part_of_list(field)) is not None:
            text = inspect.getdoc(part) or ""
            inner.append(_groups(part, prefix=f"{path}[]", meaning=text, defaults=None))
        is_required = defaults is None and field.is_required()
        settings.append(
            Setting(
                name=path,
                kind=describe_type(field),
                default="**required**" if is_required else describe_default(default),
                meaning=_plain(field.description or ""),
                is_option="[]" not in path and part is None,
            )
        )
    if settings:
        yield Group(name=prefix, meaning=_plain(meaning), settings=tuple(settings))
    for groups in inner:
        yield from groups


def _is_flattened(field: FieldInfo) -> bool:
    """Whether the command line leaves out the field's name (``tyro.conf.arg(name="")``)."""
    return any(getattr(metadata, "name", None) == "" for metadata in field.metadata)


def _part_of_list(field: FieldInfo) -> type[Config] | None:
    """Return the Config of which a field holds a list, or None."""
    parts = [one for one in get_args(field.annotation) if inspect.isclass(one) and issubclass(one, Config)]
    return parts[0] if parts else None


def describe_type(field: FieldInfo) -> str:
    """Return a setting's type and range in words, as in ``float ≥ 0`` or ``"a" | "b"``."""
    bounds = [
        f"{sign} {getattr(one, key):g}" for one in field.metadata for key, sign in _BOUNDS.items() if hasattr(one, key)
    ]
    return " ".join([_name_type(field.annotation), ", ".join(bounds)]).strip()


_TYPE_NAMES = {"str": "text", "bool": "switch", "Path": "path", "PosixPath": "path"}


def _name_type(kind: Any) -> str:  # noqa: ANN401 - any type expression
    """Name a type as a reader of the command line would; a tuple of fixed length is its values in a row."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_name_type(one) for one in arguments if one is not NoneType)
    if origin is Annotated:
        return _name_type(arguments[0])
    if origin is tuple:
        is_list = arguments[-1] is ...
        return f"list of {_name_type(arguments[0])}" if is_list else " ".join(map(_name_type, arguments))
    if inspect.isclass(kind):
        return "settings" if issubclass(kind, Config) else _TYPE_NAMES.get(kind.__name__, kind.__name__)
    return str(kind)


def describe_default(value: object) -> str:
    """Return a default as the command line takes it; "none" where nothing is given."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    try:
        plain = TypeAdapter(Any).dump_python(value, mode="json")
    except PydanticSerializationError:
        plain = str(value)
    items = plain if isinstance(plain, list) else [plain]
    return "`" + " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in items) + "`"


def _plain(text: str) -> str:
    """Return a docstring as one line of Markdown for a table's cell."""
    return " ".join(text.replace("``", "`").split())


def _table(group: Group) -> str:
    heading = f"**`{group.name}`**: {group.meaning}" if group.name else group.meaning
    rows = [
        "| "
        + " | ".join(cell.replace("|", "\\|") for cell in (f"`{one.option}`", one.kind, one.default, one.meaning))
        + " |"
        for one in group.settings
    ]
    lines = [heading, "", "| setting | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines if heading else lines[2:])


# The layers and the tree


def layers_table() -> str:
    """Return import-linter's layers as a Markdown table, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    rows = ["| package | what it holds |", "|---|---|", "| `jobs`, `serve` | entry points: jobs, and the service |"]
    rows += [f"| {_name_packages(layer)} | {_describe_packages(layer)} |" for layer in layers]
    return "\n".join(rows) + "\n"


def _name_packages(layer: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in layer.split("|"))


def _describe_packages(layer: str) -> str:
    package = ROOT / "platform" / "sottovoce"
    names = [name.strip() for name in layer.split("|")]
    paths = [package / name / "__init__.py" if (package / name).is_dir() else package / f"{name}.py" for name in names]
    return "<br>".join(first_line(path) for path in paths)


def tracked_files() -> list[PurePosixPath]:
    """Return every file git tracks that is still on disk, relative to the root.

    Raises:
        subprocess.CalledProcessError: this is not a git checkout, so nothing says which files belong to the project.
    """
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listing.stdout.decode().split("\0") if name]
    return [PurePosixPath(name) for name in names if (ROOT / name).is_file()]


def tree(files: list[PurePosixPath]) -> str:
    """Return all folders and Python modules, one a line, children below their folder and further right."""
    named = {f"{path.parent}/" for path in files if path.parent.parts}
    named |= {f"{parent}/" for path in files for parent in path.parents if parent.parts}
    named |= {str(path) for path in files if path.suffix == ".py" and path.name != "__init__.py"}
    kept = [name for name in named if not any(name.startswith(one) and name != one for one in _LEFT_OUT)]
    return "".join(_tree_line(name) for name in sorted(kept, key=_sort_key))


def _sort_key(name: str) -> list[tuple[bool, str]]:
    """Sort folders before the modules beside them, and both by name."""
    parts = PurePosixPath(name).parts
    is_folder = [True] * (len(parts) - 1) + [name.endswith("/")]
    return [(not folder, part) for folder, part in zip(is_folder, parts, strict=True)]


def _tree_line(name: str) -> str:
    path = PurePosixPath(name)
    shown = "  " * (len(path.parts) - 1) + path.name + ("/" if name.endswith("/") else "")
    text = _TEXTS.get(name) or first_line(ROOT / (path / "__init__.py" if name.endswith("/") else path))
    return f"{shown:<{_TREE_WIDTH}}{' ' if len(shown) >= _TREE_WIDTH else ''}{text}".rstrip() + "\n"


def first_line(module: Path) -> str:
    """Return the first line of a module's docstring without the command that runs it; empty if there is none."""
    if not module.is_file():
        return ""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    line = re.sub(r"[:.]?\s*``(HF_TOKEN=\S+ )?python -m .*", "", docstring.partition("\n")[0])
    return line.replace("``", "`").removesuffix(".")


if __name__ == "__main__":
    main()
