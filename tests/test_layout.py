"""The house's rules that no linter knows: sizes, jobs and recipes."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from pydantic import BaseModel

from sottovoce.config import Config, read_recipe

ROOT = Path(__file__).resolve().parent.parent
JOBS = sorted(path for path in (ROOT / "jobs").glob("*.py") if path.name != "__init__.py")
RECIPES = sorted((ROOT / "jobs" / "recipes").glob("*.yaml"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_JOB_LINES = 60


def tracked_files() -> list[PurePosixPath]:
    """Every file git knows that is still on disk, relative to the root."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    names = [name for name in listing.stdout.decode().split("\0") if name]
    return [PurePosixPath(name) for name in names if (ROOT / name).is_file()]


def tracked_modules() -> list[Path]:
    modules = [ROOT / path for path in tracked_files() if path.suffix == ".py"]
    assert modules
    return modules


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def job_config(module_name: str) -> type[Config]:
    """The one Config a job defines."""
    module = importlib.import_module(module_name)
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Config) and value.__module__ == module_name
    ]
    assert len(found) == 1, f"{module_name} defines {len(found)} Configs"
    return found[0]


def test_platform_is_never_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's platform"


def test_importing_sottovoce_loads_neither_torch_nor_ray() -> None:
    code = "import sys, sottovoce, sottovoce.config, sottovoce.schema; print({'torch', 'ray'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "platform", capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


def test_build_app_takes_a_real_class_so_that_serve_validates_its_arguments() -> None:
    (argument,) = inspect.signature(importlib.import_module("serve.app").build_app).parameters.values()
    assert inspect.isclass(argument.annotation)
    assert issubclass(argument.annotation, BaseModel)


def test_there_are_jobs_and_recipes() -> None:
    assert JOBS
    assert RECIPES


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_is_one_config_and_one_main_in_sixty_lines(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= MAX_JOB_LINES
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    configs = [node for node in classes if any(ast.unparse(base) == "Config" for base in node.bases)]
    assert len(configs) == 1, f"Configs: {[node.name for node in configs]}"
    assert [node.name for node in functions(tree)].count("main") == 1


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_jobs_main_has_no_branch_no_loop_and_no_try(path: Path) -> None:
    (main,) = [node for node in functions(ast.parse(path.read_text(encoding="utf-8"))) if node.name == "main"]
    control_flow = ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.TryStar | ast.Match
    offending = [node.lineno for node in ast.walk(main) if isinstance(node, control_flow)]
    assert not offending, f"lines {offending}: the package lacks a function"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_against_its_jobs_config(path: Path) -> None:
    header = re.match(r"# job: (jobs\.\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert header, "the first line names the job: '# job: jobs.train_whisper'"
    read_recipe(job_config(header[1]), path)


def test_no_file_is_longer_than_the_limit() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in tracked_modules()}
    assert not {name: size for name, size in sizes.items() if size > MAX_FILE_LINES}


def test_no_function_is_longer_than_the_limit() -> None:
    offending = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in tracked_modules()
        for node in functions(ast.parse(path.read_text(encoding="utf-8")))
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not offending


def test_no_module_postpones_its_annotations() -> None:
    pattern = re.compile(r"^from __future__ import .*annotations", re.MULTILINE)
    offending = [path.name for path in tracked_modules() if pattern.search(path.read_text(encoding="utf-8"))]
    assert not offending, "Serve's typed builder would receive a raw dict"


def test_every_note_of_work_to_do_names_an_issue() -> None:
    word = "TO" + "DO"
    pattern = re.compile(rf"\b{word}\b(?!\s*\(?#\d+)")
    texts = [path for path in tracked_files() if path.suffix in {".py", ".yaml", ".toml"} or path.name == "Makefile"]
    assert texts
    assert not [str(path) for path in texts if pattern.search((ROOT / path).read_text(encoding="utf-8"))]
