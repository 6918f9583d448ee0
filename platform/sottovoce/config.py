"""The base of every stage's settings, and how a job reads them: default < recipe YAML < command line."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import tyro
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sottovoce.errors import ConfigError, SottovoceError

logger = logging.getLogger(__name__)


class Config(BaseModel):
    """Frozen settings; an unknown key is an error, and the docstring below a field is its ``--help``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _complete_parts(cls, values: object) -> object:
        """Where a part is given without all of its settings, take the others from the field's default, not the part's.

        So ``scaling: Scaling = Scaling(most=4)`` keeps its 4 under a recipe with another setting of ``scaling``.
        """
        if not isinstance(values, dict):
            return values
        completed = dict(values)
        for name, field in cls.model_fields.items():
            default, given = field.default, values.get(name)
            if isinstance(default, Config) and isinstance(given, dict) and field.annotation is type(default):
                completed[name] = {**default.model_dump(exclude_unset=True), **given}
        return completed


ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(config_class: type[ConfigT], arguments: Sequence[str] | None = None) -> ConfigT:
    """Read a job's settings from ``--config recipe.yaml`` and the command line.

    Args:
        config_class: the job's Config; its fields are the command line's options.
        arguments: the command line without the program's name; ``sys.argv`` when None.

    Returns:
        The validated settings, command line over recipe over default.

    Raises:
        ConfigError: a recipe that is missing, is not YAML, or names an unknown or invalid setting.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
    description = f"{config_class.__doc__ or ''}\n\n--config FILE reads a recipe first; options override it."
    if arguments is None:
        sys.excepthook = show_error  # a recipe with a mistake is met before the job has begun
    try:
        if known.config is None:
            return tyro.cli(config_class, args=rest, description=description)
        return tyro.cli(
            config_class, args=rest, default=read_recipe(config_class, known.config), description=description
        )
    except ValidationError as error:
        raise ConfigError(f"settings of {config_class.__name__}: {error}") from error


def read_recipe(config_class: type[ConfigT], path: Path) -> ConfigT:
    """Read and validate one recipe.

    Raises:
        ConfigError: the file is missing, is not UTF-8 or not YAML, or names an unknown or invalid setting.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return config_class.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"recipe {path}: {error}") from error


def write_config(config: Config, path: Path) -> None:
    """Save the resolved settings beside an output, as YAML that ``--config`` reads back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def setup_logging() -> None:
    """Show on stderr the stages' one-line summaries, and an error of ours that ends the job as the one sentence it is.

    Called by jobs, never on import.
    """
    sys.excepthook = show_error
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("sottovoce").setLevel(logging.INFO)
    # Ray Data's own lines on each execution, and its warning that the bars we replace are off
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write what ended the process to stderr: one line for an error of ours, a traceback for any other.

    At level DEBUG the log has the traceback of ours too.
    """
    if not isinstance(error, SottovoceError):
        sys.__excepthook__(kind, error, trace)
        return
    logger.debug("where the error was raised", exc_info=(kind, error, trace))
    sys.stderr.write(f"{kind.__name__}: {error}\n")
