"""Every exception crosses a process and comes out the same, with a sentence a person can act on."""

import inspect
import pickle
import types
import typing
from pathlib import Path

import pytest

from sottovoce import errors
from sottovoce.errors import SottovoceError

EXAMPLES: dict[object, object] = {str: "words", int: 3, float: 0.25, bool: True, Path: Path("runs") / "a", bytes: b"x"}
CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, SottovoceError)]


def example(annotation: object) -> object:
    """A value of the annotated type; an unknown annotation is a KeyError that names it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (types.UnionType, typing.Union):
        return example(arguments[0])
    if origin is dict:
        return {example(arguments[0]): example(arguments[1])}
    if origin is not None:
        return (example(arguments[0]),)
    return EXAMPLES[annotation]


def build(error_class: type[SottovoceError]) -> SottovoceError:
    """The exception, raised from arguments made after its typed signature."""
    _, *parameters = inspect.signature(error_class.__init__).parameters.values()
    named = [parameter for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    untyped = inspect.Parameter.VAR_POSITIONAL  # the classes that only group others keep Exception's own signature
    return error_class(*["what happened" if field.kind is untyped else example(field.annotation) for field in named])


def test_there_are_errors() -> None:
    assert len(CLASSES) > 10
    assert CLASSES[0] is SottovoceError


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda value: value.__name__)
def test_an_error_survives_pickling_with_type_fields_and_message(error_class: type[SottovoceError]) -> None:
    error = build(error_class)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_class
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda value: value.__name__)
def test_an_error_says_something_and_carries_its_fields(error_class: type[SottovoceError]) -> None:
    error = build(error_class)
    assert error.args
    assert str(error)
    assert "{" not in str(error)


@pytest.mark.parametrize(
    "error_class", [c for c in CLASSES if c is not SottovoceError], ids=lambda value: value.__name__
)
def test_an_error_is_also_the_builtin_a_caller_would_guess(error_class: type[SottovoceError]) -> None:
    builtin = [parent for parent in error_class.__mro__ if parent.__module__ == "builtins"]
    assert set(builtin) - {Exception, BaseException, object}


def test_the_modules_tree_names_every_error() -> None:
    documented = errors.__doc__ or ""
    assert not [error_class.__name__ for error_class in CLASSES if error_class.__name__ not in documented]
