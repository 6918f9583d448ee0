"""Validate a form into a speech request. Every field is used or refused; none is ignored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from serve.errors import InvalidRequestError, shown
from serve.http.forms import ResponseFormat, ServerVad, SpeechForm, TranscriptionForm, TranslationForm
from sottovoce.config import Config
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES, LongFormOptions
from sottovoce.schema import DecodeOptions, Task

Value: TypeAlias = str | UploadFile
FormT = TypeVar("FormT", bound=Config)

_LISTS = ("timestamp_granularities", "include")
_TIMED_FORMATS = ("srt", "verbose_json", "vtt")
_STREAMED_FORMATS = ("json", "text")
# OpenAI's fields for models other than Whisper: named, so that nobody looks for a typo.
_NOT_SUPPORTED = frozenset({"languages", "keywords", "known_speaker_names", "known_speaker_references"})
_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "literal_error": "unsupported_value",
}


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """A validated request for a transcription or a translation."""

    file: UploadFile
    model: str
    task: Task
    language: str | None = None
    """As given, lower case; None to detect it."""
    prompt: str
    temperature: float
    response_format: ResponseFormat
    stream: bool = False
    wants_segments: bool = True
    """In verbose_json."""
    wants_words: bool = False
    """In verbose_json."""
    wants_logprobs: bool = False
    chunking: ServerVad | None = None
    """How to split long audio; None for the service's setting."""

    @property
    def wants_language(self) -> bool:
        """Whether the response names the detected language: the request gives none, and the text is in it."""
        return self.language is None and self.task == "transcribe"

    def decode_options(self) -> DecodeOptions:
        """Return the decoding options of every window."""
        return DecodeOptions(
            language=self.language,
            task=self.task,
            timestamps=self.response_format in _TIMED_FORMATS,
            word_timestamps=self.wants_words,
            token_logprobs=self.wants_logprobs,
            prompt=self.prompt,
            temperatures=(self.temperature,) if self.temperature else FALLBACK_TEMPERATURES,
        )

    def long_form(self, *, otherwise: LongFormOptions) -> LongFormOptions:
        """Return the long-form options: the request's chunking, and the service's settings for the rest."""
        if self.chunking is None:
            return otherwise
        asked = {
            "algorithm": "chunked",
            "threshold": self.chunking.threshold,
            "prefix_padding_s": self.chunking.prefix_padding_ms / 1000,
            "min_silence_s": self.chunking.silence_duration_ms / 1000,
            "always_find_speech": True,
        }
        return otherwise.model_copy(update=asked)


def read_transcription(form: FormData) -> SpeechRequest:
    """Check the form of ``POST /v1/audio/transcriptions``.

    Args:
        form: fields as sent; lists as ``name[]`` or ``name``, an object as ``name[key]`` or as JSON text.

    Raises:
        InvalidRequestError: a field that is missing, unknown, repeated, out of range or not supported, or fields that
            exclude each other.
    """
    values = _group(form)
    if "chunking_strategy" in values:
        values["chunking_strategy"] = _read_chunking(values["chunking_strategy"])
    checked = _check(TranscriptionForm, values)
    if "timestamp_granularities" in checked.model_fields_set and checked.response_format != "verbose_json":
        _refuse("timestamp_granularities", f"needs response_format=verbose_json, not {checked.response_format}")
    if checked.include and checked.response_format != "json":
        _refuse("include", f"logprobs needs response_format=json, not {checked.response_format}")
    if checked.stream and checked.response_format not in _STREAMED_FORMATS:
        formats = " or ".join(_STREAMED_FORMATS)
        _refuse("stream", f"true gives events, and needs response_format {formats}, not {checked.response_format}")
    chunking = ServerVad(type="server_vad") if checked.chunking_strategy == "auto" else checked.chunking_strategy
    return SpeechRequest(
        file=_check_file(checked),
        model=checked.model,
        task="transcribe",
        language=checked.language,
        prompt=checked.prompt,
        temperature=checked.temperature,
        response_format=checked.response_format,
        stream=checked.stream,
        wants_segments="segment" in checked.timestamp_granularities,
        wants_words="word" in checked.timestamp_granularities,
        wants_logprobs="logprobs" in checked.include,
        chunking=chunking,
    )


def read_translation(form: FormData) -> SpeechRequest:
    """Check the form of ``POST /v1/audio/translations``.

    Raises:
        InvalidRequestError: a field that is missing, unknown, repeated or out of range.
    """
    checked = _check(TranslationForm, _group(form))
    return SpeechRequest(
        file=_check_file(checked),
        model=checked.model,
        task="translate",
        prompt=checked.prompt,
        temperature=checked.temperature,
        response_format=checked.response_format,
    )


def _group(form: FormData) -> dict[str, Any]:
    """Group values by their names without brackets. An empty text counts as an absent field.

    Raises:
        InvalidRequestError: a field that is not a list is given more than once.
    """
    values: dict[str, Any] = {}
    for key, sent in form.multi_items():
        value = sent.strip() if isinstance(sent, str) else sent
        if value == "":
            continue
        name = key.removesuffix("[]")
        if name in _LISTS or name in _NOT_SUPPORTED:
            values.setdefault(name, []).append(value)
        elif key == "chunking_strategy" or key.startswith("chunking_strategy["):
            values.setdefault("chunking_strategy", []).append((key, value))
        elif key in values:
            _refuse(shown(key), "is given more than once; send it once")
        else:
            values[key] = value
    return values


def _read_chunking(sent: list[tuple[str, Value]]) -> ServerVad | Literal["auto"]:
    """Read ``chunking_strategy`` in any of its wire forms: ``auto``, JSON text, or one part for each key.

    Raises:
        InvalidRequestError: another type, a key twice, or text that is neither ``auto`` nor a JSON object.
    """
    keys = [key for key, _ in sent]
    if len(set(keys)) < len(keys) or ("chunking_strategy" in keys and len(keys) > 1):
        _refuse("chunking_strategy", f"is given more than once, as {shown(', '.join(keys))}; send one of them")
    key, value = sent[0]
    if key != "chunking_strategy":
        parts = {key.removeprefix("chunking_strategy[").removesuffix("]"): part for key, part in sent}
        return _check(ServerVad, parts, inside="chunking_strategy")
    if value == "auto":
        return "auto"
    parsed = _parse_json(value)
    if not isinstance(parsed, dict):
        _refuse("chunking_strategy", f"must be auto, or an object of type server_vad{_instead(value)}")
    return _check(ServerVad, parsed, inside="chunking_strategy")


def _parse_json(value: Value) -> object:
    """Return the parsed JSON text; None when it is not JSON."""
    try:
        parsed: object = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None
    return parsed


def _check(form_class: type[FormT], values: Mapping[str, Any], *, inside: str = "") -> FormT:
    """Validate values, and describe the first error in OpenAI's shape.

    Raises:
        InvalidRequestError: names the invalid field.
    """
    try:
        return form_class.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        name = shown(str(fault["loc"][0])) if fault["loc"] else ""  # a key that is not Unicode has no location
        param = ".".join(part for part in (inside, name) if part)
        if name in _NOT_SUPPORTED:
            message = f"{param} is not supported by this kind of model"
            raise InvalidRequestError(message, param, "unsupported_parameter") from error
        code = _CODES.get(fault["type"], "invalid_value")
        raise InvalidRequestError(_sentence(param, code, fault["msg"], fault["input"]), param, code) from error


def _sentence(param: str, code: str, reason: str, value: object) -> str:
    if param == "file" and isinstance(value, str):
        return "file must be a file part with a filename, not text"
    if isinstance(value, UploadFile):
        return f"{param} must be text, not a file"
    if code == "missing_required_parameter":
        return f"{param} is missing"
    if code == "unknown_parameter":
        return f"unknown parameter {param!r}"
    return f"{param}: {reason[:1].lower()}{reason[1:]}{_instead(value)}"


def _instead(value: object) -> str:
    """Return the end of a message that quotes the value sent: a text, a file, or parsed JSON."""
    if isinstance(value, UploadFile):
        return ", not a file"
    return f", not {shown(value)!r}" if isinstance(value, str) else f", not {shown(repr(value))}"


def _check_file(form: SpeechForm) -> UploadFile:
    """Return the file, and refuse an empty one."""
    if not form.file.size:
        _refuse("file", "is empty (0 bytes); send a recording")
    return form.file


def _refuse(name: str, reason: str) -> NoReturn:
    raise InvalidRequestError(f"{name} {reason}", name, "invalid_value")
