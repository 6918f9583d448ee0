"""Validate a form into a speech request. Every field is used or refused; none is ignored."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from serve.errors import InvalidRequestError, shown
from serve.http.forms import INSTEAD, ResponseFormat, ServerVad, SpeechForm, TranscriptionForm, TranslationForm
from sottovoce.config import Config
from sottovoce.recognize.longform.options import FALLBACK_TEMPERATURES, LongFormOptions
from sottovoce.schema import DecodeOptions, Task
from sottovoce.text.languages import find_language, language_spellings

Value: TypeAlias = str | UploadFile
FormT = TypeVar("FormT", bound=Config)

_LISTS = ("timestamp_granularities", "include")
_TIMED_FORMATS = ("srt", "verbose_json", "vtt")
_STREAMED_FORMATS = ("json", "text")
_BRACKETS = re.compile(r"\[\d*\]$")  # of name[], and of name[0] as some form libraries write it
_DETECT = "auto"  # what other servers take for an absent language
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
    """As given, or the model's code for it after ``spoken_in``; None to detect it."""
    prompt: str
    """Hotwords and prompt."""
    temperature: float
    beam_size: int = 1
    best_of: int = 1
    seed: int = 0
    response_format: ResponseFormat
    stream: bool = False
    wants_segments: bool = True
    """In verbose_json."""
    wants_words: bool = False
    """In verbose_json."""
    wants_logprobs: bool = False
    chunking: ServerVad | None = None
    """How to split long audio; None for the service's setting."""
    vad_filter: bool | None = None
    """Whether to decode only what the speech detector finds; None for the service's setting."""
    timestamps: bool | None = None
    """Whether the model generates timestamps; None if it does where the response has segments."""
    wants_usage: bool = True
    """In a stream's last event."""

    @property
    def wants_language(self) -> bool:
        """Whether the response names the detected language: the request gives none, and the text is in it."""
        return self.language is None and self.task == "transcribe"

    def spoken_in(self, names: Mapping[str, str]) -> "SpeechRequest":
        """Return the request with its language as the model's code for it.

        Args:
            names: English name of each language that the model knows, by its code.

        Raises:
            InvalidRequestError: the model does not know the language.
        """
        if self.language is None:
            return self
        code = find_language(self.language, language_spellings(names))
        if code is None:
            message = (
                f"language {shown(self.language)!r} is unknown to this model; use an ISO 639-1 code such as en, or none"
            )
            raise InvalidRequestError(message, "language", "unsupported_language")
        return replace(self, language=code)

    def decode_options(self) -> DecodeOptions:
        """Return the decoding options of every window."""
        return DecodeOptions(
            language=self.language,
            task=self.task,
            timestamps=self.response_format in _TIMED_FORMATS if self.timestamps is None else self.timestamps,
            word_timestamps=self.wants_words,
            token_logprobs=self.wants_logprobs,
            prompt=self.prompt,
            temperatures=(self.temperature,) if self.temperature else FALLBACK_TEMPERATURES,
            best_of=self.best_of,
            beam_size=self.beam_size,
            seed=self.seed,
        )

    def long_form(self, *, otherwise: LongFormOptions) -> LongFormOptions:
        """Return the long-form options: what the request says, and the service's settings for the rest."""
        asked: dict[str, object] = {}
        if self.timestamps is False:
            asked["algorithm"] = "chunked"  # sequential moves by timestamps
        if self.vad_filter is False:  # chunked cuts by the speech detector
            asked |= {"algorithm": "sequential", "skip_without_voice": False}
        if self.vad_filter:
            asked |= {"algorithm": "chunked", "skip_without_voice": True, "always_find_speech": True}
        if self.chunking is not None:
            asked |= {
                "algorithm": "chunked",
                "threshold": self.chunking.threshold,
                "prefix_padding_s": self.chunking.prefix_padding_ms / 1000,
                "min_silence_s": self.chunking.silence_duration_ms / 1000,
                "always_find_speech": True,
            }
        return otherwise.model_copy(update=asked) if asked else otherwise


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
    _check_format(checked)
    if checked.vad_filter is False and checked.chunking_strategy is not None:
        _refuse("vad_filter", "false decodes what is no speech, which chunking_strategy leaves out; send only one")
    language = None if checked.language is None or checked.language.lower() == _DETECT else checked.language
    chunking = ServerVad(type="server_vad") if checked.chunking_strategy == "auto" else checked.chunking_strategy
    return replace(
        _read_common(checked, "transcribe", prompt=checked.prompt),
        language=language,
        stream=checked.stream,
        wants_segments="segment" in checked.timestamp_granularities,
        wants_words="word" in checked.timestamp_granularities,
        wants_logprobs="logprobs" in checked.include,
        wants_usage=checked.stream_include_usage is not False,
        chunking=chunking,
    )


def _check_format(form: TranscriptionForm) -> None:
    """Refuse fields that the response format, or an answer without events, has no place for."""
    if "word" in form.timestamp_granularities and form.response_format != "verbose_json":
        _refuse("timestamp_granularities", f"word needs response_format=verbose_json, not {form.response_format}")
    if form.include and form.response_format != "json":
        _refuse("include", f"logprobs needs response_format=json, not {form.response_format}")
    if form.stream and form.response_format not in _STREAMED_FORMATS:
        formats = " or ".join(_STREAMED_FORMATS)
        _refuse("stream", f"true gives events, and needs response_format {formats}, not {form.response_format}")
    if form.stream_include_usage is not None and not form.stream:
        _refuse("stream_include_usage", "needs stream=true; without it, the answer has its usage if it is JSON")


def read_translation(form: FormData) -> SpeechRequest:
    """Check the form of ``POST /v1/audio/translations``.

    Raises:
        InvalidRequestError: a field that is missing, unknown, repeated or out of range, or fields that exclude each
            other.
    """
    checked = _check(TranslationForm, _group(form))
    target = checked.to_language
    if target is not None and find_language(target, language_spellings({"en": "english"})) is None:
        _refuse("to_language", f"must be en, the only language that Whisper translates into, not {shown(target)!r}")
    return _read_common(checked, "translate", prompt=checked.prompt)


def _read_common(form: SpeechForm, task: Task, *, prompt: str) -> SpeechRequest:
    """Return the request with what both forms have.

    Raises:
        InvalidRequestError: the file is empty, or fields exclude each other.
    """
    if form.beam_size > 1 and form.temperature:
        _refuse("beam_size", f"searches at temperature 0, not {form.temperature:g}; send best_of, or no temperature")
    if form.vad_filter is False and form.without_timestamps:
        _refuse("vad_filter", "false moves by timestamps; leave out without_timestamps, or send vad_filter=true")
    return SpeechRequest(
        file=_check_file(form),
        model=form.model,
        task=task,
        prompt=" ".join(text for text in (form.hotwords, prompt) if text),
        temperature=form.temperature,
        response_format=form.response_format,
        beam_size=form.beam_size,
        best_of=form.best_of,
        seed=form.seed,
        vad_filter=form.vad_filter,
        timestamps=None if form.without_timestamps is None else not form.without_timestamps,
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
        name = _BRACKETS.sub("", key)
        if name in _LISTS:
            values.setdefault(name, []).extend(_split_list(value))
        elif name in INSTEAD and name not in values:
            values[name] = value
        elif key == "chunking_strategy" or key.startswith("chunking_strategy["):
            values.setdefault("chunking_strategy", []).append((key, value))
        elif key in values:
            _refuse(shown(key), "is given more than once; send it once")
        else:
            values[key] = value
    return values


def _split_list(value: Value) -> list[object]:
    """Return the items of a list: of JSON text, or of text with commas, which is also a single item."""
    parsed = _parse_json(value)
    if isinstance(parsed, list):
        return parsed
    if isinstance(value, UploadFile):
        return [value]
    return [item.strip() for item in value.split(",") if item.strip()]


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
        if fault["type"] == "extra_forbidden" and name in INSTEAD:
            message = f"{param} is not supported: {INSTEAD[name]}"
            raise InvalidRequestError(message, param, "unsupported_parameter") from error
        code = _CODES.get(fault["type"], "invalid_value")
        raise InvalidRequestError(_sentence(param, code, fault["msg"], fault["input"]), param, code) from error


def _sentence(param: str, code: str, reason: str, value: object) -> str:
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
