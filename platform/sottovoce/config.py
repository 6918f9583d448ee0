"""The base class of every stage's settings, and how a job reads them: default < recipe YAML < command line."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, TypedDict, TypeVar, cast, get_args

import tyro
import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from sottovoce.errors import ConfigError, SottovoceError

logger = logging.getLogger(__name__)


class Config(BaseModel):
    """Frozen settings; an unknown key is an error, and the docstring below a field is its ``--help``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _complete_parts(cls, values: object) -> object:
        """Fill what a nested Config leaves out from the default of its field, not from the nested class's defaults.

        So ``scaling: Scaling = Scaling(most=4)`` keeps its 4 when a recipe sets another setting of ``scaling``.
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

    The recipe and the command line are merged first and validated once: each may leave out what the other sets.

    Args:
        config_class: the job's Config; its fields are the command line's options.
        arguments: the command line without the program's name; ``sys.argv`` when None.

    Returns:
        The validated settings, command line over recipe over default.

    Raises:
        ConfigError: the recipe is missing or is not YAML, or a setting is unknown, invalid or missing; the message
            names the recipe's file and key, or the option.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
    description = f"{config_class.__doc__ or ''}\n\n--config FILE reads a recipe first; options override it."
    if arguments is None:
        sys.excepthook = show_error  # a mistake in a recipe is found before the job has set up its logging
    if known.config is None or {"-h", "--help"} & set(rest):
        try:
            return tyro.cli(
                config_class, args=rest, default=_help_defaults(config_class, known.config), description=description
            )
        except ValidationError as error:
            raise ConfigError(f"settings of {config_class.__name__}: {error}") from error
    recipe = _read_yaml(known.config)
    options = cast("dict[str, Any]", tyro.cli(_options_class(config_class), args=rest, description=description))
    merged = _merge(config_class, recipe, options) if isinstance(recipe, dict) else recipe  # validation refuses others
    return _validate(config_class, merged, options=options, path=known.config)


def read_recipe(config_class: type[ConfigT], path: Path) -> ConfigT:
    """Read and validate one recipe by itself, without a command line.

    Raises:
        ConfigError: the file is missing, is not UTF-8 or not YAML, or a setting is unknown, invalid or missing.
    """
    return _validate(config_class, _read_yaml(path), options={}, path=path)


def write_config(config: Config, path: Path) -> None:
    """Write the resolved settings as YAML that ``--config`` reads back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def setup_logging() -> None:
    """Show the stages' log lines on stderr, and an error of Sottovoce that ends the job as one line.

    Jobs call it; importing a module never does.
    """
    sys.excepthook = show_error
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("sottovoce").setLevel(logging.INFO)
    # Ray Data logs each execution, and warns that its progress bars, which ours replace, are off
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the error that ended the process to stderr: one line for SottovoceError or Ctrl-C, else a traceback.

    At level DEBUG the log has the traceback of a SottovoceError, too.
    """
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped by Ctrl-C\n")  # Python then exits with the signal's code, 130
        return
    if not isinstance(error, SottovoceError):
        sys.__excepthook__(kind, error, trace)
        return
    logger.debug("where the error was raised", exc_info=(kind, error, trace))
    sys.stderr.write(f"{kind.__name__}: {error}\n")


def _read_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"recipe {path}: {error}") from error


def _help_defaults(config_class: type[ConfigT], recipe: Path | None) -> ConfigT | Any:  # noqa: ANN401 - tyro's marker
    """Return the settings that ``--help`` shows as defaults: the recipe's, if it is complete by itself."""
    try:
        return tyro.MISSING_NONPROP if recipe is None else read_recipe(config_class, recipe)
    except ConfigError:
        return tyro.MISSING_NONPROP


def _options_class(config_class: type[Config]) -> type:
    """Build the TypedDict of a Config's options: tyro then returns those that the command line gives, and no others."""
    options: dict[str, object] = {}
    for name, field in config_class.model_fields.items():
        nested = _nested_class(field)
        if nested is None and _holds_config(field.annotation):
            continue  # a list of Configs has no form on a command line; a recipe sets it
        option = field.annotation if nested is None else _options_class(nested)
        options[name] = Annotated[(option, *field.metadata)] if field.metadata else option
    return TypedDict(config_class.__name__, options, total=False)  # type: ignore[operator, no-any-return]


def _holds_config(kind: object) -> bool:
    return (isinstance(kind, type) and issubclass(kind, Config)) or any(map(_holds_config, get_args(kind)))


def _nested_class(field: FieldInfo) -> type[Config] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def _merge(config_class: type[Config], recipe: Mapping[str, object], options: Mapping[str, Any]) -> dict[str, object]:
    """Put the command line's options over a recipe's keys, nested Configs key by key."""
    merged = dict(recipe)
    for name, option in options.items():
        field = config_class.model_fields[name]
        key = next((key for key in (name, *_aliases(field)) if key in merged), name)
        nested, below = _nested_class(field), merged.get(key, {})
        if nested is None:
            merged.pop(key, None)
            merged[name] = option
        elif option and isinstance(below, dict):
            merged[key] = _merge(nested, below, option)
    return merged


def _aliases(field: FieldInfo) -> list[str]:
    """List the other names a recipe may use for a field: those it had in earlier releases."""
    choices = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
    return [choice for choice in choices if isinstance(choice, str)]


def _validate(config_class: type[ConfigT], values: object, *, options: Mapping[str, Any], path: Path) -> ConfigT:
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        sentences = [_describe(config_class, one["loc"], one["type"], one["msg"], options) for one in problems]
        raise ConfigError(f"recipe {path}: " + "; ".join(sentences)) from error


def _describe(
    config_class: type[Config], keys: Sequence[int | str], kind: str, message: str, options: Mapping[str, Any]
) -> str:
    """Describe one mistake by the recipe's key, or by the option where the command line set the value."""
    name, option, given = ".".join(map(str, keys)), _option_name(config_class, keys), cast("object", options)
    if kind == "missing" and option:
        return f"{name} is missing; set it in the recipe, or give {option} on the command line"
    for key in keys:
        if not isinstance(given, Mapping):
            break  # the option's own value; what follows are its parts
        if key not in given:
            return f"{name}: {message}"
        given = given[key]
    return f"{option} on the command line: {message}" if option and keys else f"{name}: {message}".removeprefix(": ")


def _option_name(config_class: type[Config], keys: Sequence[int | str]) -> str | None:
    """Return the option that sets the field at a path of keys; None where the path leads to no field."""
    parts: list[str] = []
    below: type[Config] | None = config_class
    for key in keys:
        field = None if below is None else below.model_fields.get(str(key))
        if field is None:
            return "--" + ".".join(parts) if parts and below is None else None
        named = [one.name for one in field.metadata if getattr(one, "name", None) is not None]  # by tyro.conf.arg
        parts += [part.replace("_", "-") for part in (named or [str(key)]) if part]
        below = _nested_class(field)
    return "--" + ".".join(parts) if parts else None
