"""The form fields of a transcription request: each is used or refused, none is ignored in silence."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from starlette.datastructures import FormData, UploadFile

from serve.errors import InvalidRequestError

ResponseFormat: TypeAlias = Literal["json", "text", "verbose_json"]

_FORMATS: tuple[ResponseFormat, ...] = get_args(ResponseFormat)
_FORMATS_TO_COME = ("srt", "vtt", "diarized_json")
_LIST_FIELDS = frozenset({"timestamp_granularities", "include"})
_NOT_SUPPORTED = frozenset({"languages", "keywords", "known_speaker_names", "known_speaker_references"})


@dataclass(frozen=True, kw_only=True)
class TranscriptionFields:
    """A checked transcription request."""

    file: UploadFile
    model: str
    language: str | None
    """ISO 639-1 code, or None to detect it."""
    response_format: ResponseFormat


def parse_fields(form: FormData, *, languages: Collection[str]) -> TranscriptionFields:
    """Check a form.

    Args:
        form: fields as sent; lists as ``name[]`` or ``name``.
        languages: ISO 639-1 codes the model knows.

    Raises:
        InvalidRequestError: a field that is missing, unknown, repeated, out of range, or not supported yet.
    """
    values = _group(form)
    for name in values:
        if name not in _CHECKS and name not in ("file", "model", "language", "response_format"):
            _refuse_name(name)
    response_format = _parse_format(_text(values, "response_format") or "json")
    for name, check in _CHECKS.items():
        for value in values.get(name, ()):
            if value:
                check(_as_text(name, value))
    if values.get("timestamp_granularities") and response_format != "verbose_json":
        raise InvalidRequestError(
            "timestamp_granularities needs response_format=verbose_json", "timestamp_granularities", "invalid_value"
        )
    return TranscriptionFields(
        file=_require_file(values),
        model=_require_text(values, "model"),
        language=_parse_language(_text(values, "language"), languages),
        response_format=response_format,
    )


def _group(form: FormData) -> dict[str, list[str | UploadFile]]:
    """Collect the values of each field under its name without brackets."""
    values: dict[str, list[str | UploadFile]] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]")
        name = "chunking_strategy" if name.startswith("chunking_strategy[") else name
        values.setdefault(name, []).append(value)
    for name, given in values.items():
        if len(given) > 1 and name not in _LIST_FIELDS | {"chunking_strategy"}:
            raise InvalidRequestError(f"{name} is given {len(given)} times", _shown(name), "invalid_value")
    return values


def _refuse_name(name: str) -> None:
    if name in _NOT_SUPPORTED:
        raise InvalidRequestError(f"{name} is not supported by this model", name, "unsupported_parameter")
    raise InvalidRequestError(f"unknown parameter {_shown(name)!r}", _shown(name), "unknown_parameter")


def _require_file(values: dict[str, list[str | UploadFile]]) -> UploadFile:
    for value in values.get("file", ()):
        if isinstance(value, UploadFile):
            return value
        raise InvalidRequestError("file must be a file part with a filename", "file", "invalid_value")
    raise InvalidRequestError("file is missing", "file", "missing_required_parameter")


def _require_text(values: dict[str, list[str | UploadFile]], name: str) -> str:
    value = _text(values, name)
    if not value:
        raise InvalidRequestError(f"{name} is missing", name, "missing_required_parameter")
    return value


def _text(values: dict[str, list[str | UploadFile]], name: str) -> str:
    """Give a single field's text; empty where it is not given, as a form cannot tell the two apart."""
    return "".join(_as_text(name, value) for value in values.get(name, ())).strip()


def _as_text(name: str, value: str | UploadFile) -> str:
    if isinstance(value, UploadFile):
        raise InvalidRequestError(f"{name} must be text, not a file", name, "invalid_value")
    return value


def _parse_format(value: str) -> ResponseFormat:
    for known in _FORMATS:
        if value == known:
            return known
    fault = "is not supported yet" if value in _FORMATS_TO_COME else "is unknown"
    message = f"response_format {_shown(value)!r} {fault}; use {', '.join(_FORMATS)}"
    raise InvalidRequestError(message, "response_format", "unsupported_value")


def _parse_language(value: str, languages: Collection[str]) -> str | None:
    if not value:
        return None
    if value.lower() in languages:
        return value.lower()
    message = f"language {_shown(value)!r} is unknown to this model; use an ISO 639-1 code, or none to detect it"
    raise InvalidRequestError(message, "language", "unsupported_language")


def _check_temperature(value: str) -> None:
    try:
        temperature = float(value)
    except ValueError:
        temperature = math.nan
    if not 0.0 <= temperature <= 1.0:
        raise InvalidRequestError("temperature must be a number from 0 to 1", "temperature", "invalid_value")
    if temperature > 0.0:
        raise InvalidRequestError("only temperature 0 (greedy) is supported", "temperature", "unsupported_value")


def _check_prompt(value: str) -> None:
    if value.strip():
        raise InvalidRequestError("prompt is not supported yet; leave it out", "prompt", "unsupported_parameter")


def _check_stream(value: str) -> None:
    if value.strip().lower() not in ("false", "0"):
        raise InvalidRequestError("stream=true is not supported yet; leave it out", "stream", "unsupported_value")


def _check_include(value: str) -> None:
    raise InvalidRequestError(f"include {_shown(value)!r} is not supported", "include", "unsupported_value")


def _check_granularity(value: str) -> None:
    if value != "segment":
        message = f"timestamp_granularities {_shown(value)!r} is not supported; use segment"
        raise InvalidRequestError(message, "timestamp_granularities", "unsupported_value")


def _check_chunking(value: str) -> None:
    # "auto" is what the gateway does: it cuts long audio at its silences.
    if value != "auto":
        message = "only chunking_strategy=auto is supported"
        raise InvalidRequestError(message, "chunking_strategy", "unsupported_value")


def _shown(value: str) -> str:
    """Cut what a client sent to what may stand in a message."""
    return value if len(value) <= 64 else f"{value[:64]}..."


_CHECKS: dict[str, Callable[[str], None]] = {
    "temperature": _check_temperature,
    "prompt": _check_prompt,
    "stream": _check_stream,
    "include": _check_include,
    "timestamp_granularities": _check_granularity,
    "chunking_strategy": _check_chunking,
}
