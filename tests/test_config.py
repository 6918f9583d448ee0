import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import tyro
from pydantic import AliasChoices, Field, ValidationError, model_validator

from sottovoce.config import Config, load_config, read_recipe, show_error, write_config
from sottovoce.errors import ConfigError


class Optimizer(Config):
    """How the weights move."""

    learning_rate: float = Field(default=1e-4, gt=0.0)
    """Peak of the schedule."""
    warmup_steps: int = 10


class Run(Config):
    """One run of the example."""

    output: Path = Path("runs") / "x"
    """Folder that receives everything."""
    optimizer: Optimizer = Optimizer()
    max_steps: int = 100

    @model_validator(mode="after")
    def warms_up_before_the_end(self) -> "Run":
        if self.optimizer.warmup_steps > self.max_steps:
            raise ValueError("warmup_steps is longer than the run")
        return self


class Needy(Config):
    """A run that must be told where to write."""

    output: Path


class Job(Config):
    """A job with a run, that must be told where to write."""

    output: Path
    run: Run


class Flat(Config):
    """A job whose part's options carry no prefix."""

    needy: Annotated[Needy, tyro.conf.arg(name="")]
    max_steps: int = 1


class Inner(Config):
    """A part with a renamed field."""

    peak_lr: int = Field(default=1, validation_alias=AliasChoices("peak_lr", "speed"))


class Renamed(Config):
    """A run with a renamed field and a renamed part."""

    peak_lr: int = Field(default=1, validation_alias=AliasChoices("peak_lr", "speed"))
    sub: Inner = Field(default=Inner(), validation_alias=AliasChoices("sub", "part"))


class Several(Config):
    """A run with a list of parts."""

    needs: tuple[Needy, ...] = ()
    max_steps: int = 1


class Switch(Config):
    """A run with a switch."""

    is_on: bool = False


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_arguments_the_defaults_stand() -> None:
    assert load_config(Run, []) == Run()


def test_the_command_line_beats_the_recipe_and_the_recipe_beats_the_default(tmp_path: Path) -> None:
    recipe = write(tmp_path, "max_steps: 50\noptimizer:\n  learning_rate: 0.01\n  warmup_steps: 5\n")
    run = load_config(Run, ["--config", str(recipe), "--optimizer.learning-rate", "0.02"])
    assert (run.max_steps, run.optimizer.warmup_steps, run.optimizer.learning_rate) == (50, 5, 0.02)


class Sweep(Config):
    """A run whose part has a default that is not the part's own."""

    optimizer: Optimizer = Optimizer(warmup_steps=3)


def test_what_a_recipe_leaves_out_of_a_part_stays_as_the_fields_default_has_it(tmp_path: Path) -> None:
    recipe = write(tmp_path, "optimizer:\n  learning_rate: 0.01\n")
    assert read_recipe(Sweep, recipe).optimizer == Optimizer(learning_rate=0.01, warmup_steps=3)
    assert load_config(Sweep, ["--config", str(recipe), "--optimizer.warmup-steps", "4"]).optimizer.warmup_steps == 4
    assert Sweep(optimizer=Optimizer(learning_rate=0.01)).optimizer.warmup_steps == 10, "a whole part is what it is"


def test_a_recipe_may_give_what_has_no_default(tmp_path: Path) -> None:
    assert load_config(Needy, ["--config", str(write(tmp_path, "output: there\n"))]).output == Path("there")


def test_a_recipe_may_leave_out_a_required_field_that_the_command_line_gives(tmp_path: Path) -> None:
    recipe = str(write(tmp_path, "run: {max_steps: 5, optimizer: {learning_rate: 0.01}}\n"))
    given = ["--output", "there", "--run.optimizer.warmup-steps", "2"]
    job = load_config(Job, ["--config", recipe, *given])
    assert job == Job(
        output=Path("there"), run=Run(max_steps=5, optimizer=Optimizer(learning_rate=0.01, warmup_steps=2))
    )
    with pytest.raises(ConfigError, match=r"recipe\.yaml: output is missing; .*give --output on the command line"):
        load_config(Job, ["--config", recipe, *given[2:]])


def test_settings_that_fit_only_once_merged_are_accepted(tmp_path: Path) -> None:
    recipe = write(tmp_path, "max_steps: 5\n")  # fewer than the default's warmup_steps
    with pytest.raises(ConfigError, match="warmup_steps is longer than the run"):
        load_config(Run, ["--config", str(recipe)])
    assert load_config(Run, ["--config", str(recipe), "--max-steps", "50"]).max_steps == 50


def test_an_error_names_the_recipes_key_or_the_option_whichever_set_the_value(tmp_path: Path) -> None:
    recipe = str(write(tmp_path, "optimizer: {learning_rate: -1}\nmax_steps: many\n"))
    with pytest.raises(ConfigError, match=r"recipe\.yaml: optimizer\.learning_rate: .*greater than 0.*; max_steps: "):
        load_config(Run, ["--config", recipe])
    with pytest.raises(ConfigError, match=r"recipe\.yaml: --optimizer\.learning-rate on the command line: .*greater"):
        load_config(Run, ["--config", recipe, "--optimizer.learning-rate", "-2", "--max-steps", "50"])


def test_an_option_without_its_parts_name_is_the_one_an_error_asks_for(tmp_path: Path) -> None:
    recipe = str(write(tmp_path, "max_steps: 3\n"))
    assert load_config(Flat, ["--config", recipe, "--output", "there"]).needy.output == Path("there")
    with pytest.raises(ConfigError, match=r"needy\.output is missing; .*give --output on"):
        load_config(Flat, ["--config", str(write(tmp_path, "needy: {}\n"))])


def test_an_option_replaces_a_key_that_the_recipe_calls_by_an_earlier_name(tmp_path: Path) -> None:
    recipe = str(write(tmp_path, "speed: 3\npart: {speed: 4}\n"))
    assert load_config(Renamed, ["--config", recipe]) == Renamed(peak_lr=3, sub=Inner(peak_lr=4))
    given = ["--peak-lr", "5", "--sub.peak-lr", "6"]
    assert load_config(Renamed, ["--config", recipe, *given]) == Renamed(peak_lr=5, sub=Inner(peak_lr=6))


def test_a_switch_that_the_command_line_leaves_out_stays_as_the_recipe_has_it(tmp_path: Path) -> None:
    recipe = str(write(tmp_path, "is_on: true\n"))
    assert load_config(Switch, ["--config", recipe]).is_on
    assert not load_config(Switch, ["--config", recipe, "--no-is-on"]).is_on


def test_a_list_of_parts_comes_from_the_recipe_alone(tmp_path: Path) -> None:
    recipe = str(write(tmp_path, "needs: [{output: a}, {output: b}]\n"))
    assert load_config(Several, ["--config", recipe, "--max-steps", "3"]) == Several(
        needs=(Needy(output=Path("a")), Needy(output=Path("b"))), max_steps=3
    )


def test_help_shows_a_recipes_values_and_works_where_the_recipe_is_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for config_class, text, expected in ((Run, "max_steps: 77\n", "77"), (Job, "run: {max_steps: 77}\n", "required")):
        with pytest.raises(SystemExit, match="0"):
            load_config(config_class, ["--config", str(write(tmp_path, text)), "--help"])
        assert expected in capsys.readouterr().out


def test_an_empty_recipe_changes_nothing(tmp_path: Path) -> None:
    assert read_recipe(Run, write(tmp_path, "# job: jobs.example\n")) == Run()


@pytest.mark.parametrize(
    "text",
    ["max_stesp: 3\n", "optimizer: {momentum: 1}\n", "max_steps: many\n", "- a list\n", "a: [1\n", "max_steps: 1\n"],
    ids=["unknown key", "unknown nested key", "wrong type", "not a mapping", "not YAML", "against a validator"],
)
def test_a_bad_recipe_raises_config_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        read_recipe(Run, write(tmp_path, text))


def test_a_missing_recipe_raises_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(Run, ["--config", str(tmp_path / "none.yaml")])


def test_a_recipe_in_another_encoding_raises_config_error(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes("output: grün\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        read_recipe(Run, path)


@pytest.mark.parametrize("arguments", [["--max-steps", "5"], ["--optimizer.learning-rate", "-1"]])
def test_values_that_do_not_fit_on_the_command_line_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((ConfigError, SystemExit)) as refusal:
        load_config(Run, arguments)
    said = str(refusal.value) + capsys.readouterr().err
    assert "warmup_steps" in said or "learning" in said


def test_an_unknown_option_ends_the_program_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        load_config(Run, ["--max-stesp", "3"])
    assert "max-stesp" in capsys.readouterr().err


def test_help_shows_the_docstring_below_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        load_config(Run, ["--help"])
    said = capsys.readouterr().out
    assert "Peak of the schedule." in said
    assert "--config FILE" in said


def test_a_config_is_frozen_and_refuses_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Run().max_steps = 3
    with pytest.raises(ValidationError, match="extra"):
        Run.model_validate({"steps": 3})


def test_a_written_config_reads_back_the_same(tmp_path: Path) -> None:
    run = Run(output=tmp_path / "o", optimizer=Optimizer(learning_rate=3e-5), max_steps=7000)
    write_config(run, tmp_path / "new" / "config.yaml")
    assert read_recipe(Run, tmp_path / "new" / "config.yaml") == run


def run_job(root: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(root / "platform")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_that_ends_with_an_error_of_ours_shows_its_sentence_alone(root: Path) -> None:
    answer = run_job(
        root,
        "from sottovoce.config import setup_logging\n"
        "from sottovoce.errors import CheckpointError\n"
        "setup_logging()\n"
        "raise CheckpointError('runs/a', 'it is damaged')\n",
    )
    assert answer.returncode == 1
    assert answer.stderr == "CheckpointError: cannot use the model in runs/a: it is damaged\n"


def test_a_mistake_in_a_recipe_is_one_error_without_a_traceback(root: Path) -> None:
    answer = run_job(
        root,
        "import sys\n"
        "from sottovoce.config import Config, load_config\n"
        "sys.argv = ['job', '--config', 'nowhere.yaml']\n"
        "load_config(Config)\n",
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("ConfigError: recipe nowhere.yaml: ")
    assert "Traceback" not in answer.stderr


def test_any_other_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(KeyError, KeyError("x"), None)
    assert capsys.readouterr().err == "KeyError: 'x'\n"


def test_ctrl_c_ends_a_job_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"
