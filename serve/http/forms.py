"""The forms of the audio routes: every field with its range and description, validated here and shown in the schema."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, InstanceOf, StringConstraints, WithJsonSchema
from starlette.datastructures import UploadFile

from serve.http.omittable import Omittable
from sottovoce.config import Config
from sottovoce.recognize.longform.options import LongFormOptions

ResponseFormat: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity: TypeAlias = Literal["segment", "word"]

_Upload: TypeAlias = Annotated[InstanceOf[UploadFile], WithJsonSchema({"type": "string", "format": "binary"})]

_CHUNKED = LongFormOptions()  # whose defaults are OpenAI's: 300 ms, 200 ms, 0.5
_MAX_VAD_MS = 30_000  # a model's longest context; longer padding and pauses would leave nowhere to cut


class ServerVad(Config):
    """How voice activity decides where long audio is cut."""

    type: Literal["server_vad"]
    prefix_padding_ms: int = Field(default=round(_CHUNKED.prefix_padding_s * 1000), ge=0, le=_MAX_VAD_MS)
    """Milliseconds of audio kept before speech."""
    silence_duration_ms: int = Field(default=round(_CHUNKED.min_silence_s * 1000), ge=0, le=_MAX_VAD_MS)
    """Milliseconds of silence that end a stretch of speech."""
    threshold: float = Field(default=_CHUNKED.threshold, ge=0.0, le=1.0, allow_inf_nan=False)
    """Probability above which the detector counts a frame as speech; higher values need louder, clearer audio."""


class SpeechForm(Config):
    """Fields of both routes."""

    file: _Upload
    """The recording: flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm, or whatever else FFmpeg reads. Its contents
    count, not its name."""
    model: str = Field(min_length=1)
    """One of the ids of ``GET /v1/models``."""
    response_format: ResponseFormat = "json"
    """json and verbose_json are JSON, the others plain text; srt, vtt and verbose_json hold segments with times."""
    temperature: float = Field(default=0.0, ge=0.0, le=1.0, allow_inf_nan=False)
    """0 decodes greedily and raises the temperature when the text repeats or is unlikely; above 0 samples tokens at
    this temperature alone."""


class TranslationForm(SpeechForm):
    """Speech in any language that the model knows, translated into English.

    As in OpenAI's route there is no ``language`` (it is detected), no ``stream`` and no ``timestamp_granularities``;
    a field that is not listed here is refused.
    """

    prompt: str = ""
    """English text that precedes the translation: names, spellings, style. Only its end is used."""


class TranscriptionForm(SpeechForm):
    """Speech transcribed in its own language. Lists may be sent as ``name`` or ``name[]``, once for each item.

    OpenAI's fields for other kinds of models are refused by name: languages, keywords, known_speaker_names,
    known_speaker_references; so is a field that is not listed here.
    """

    prompt: str = ""
    """Text in the audio's language that precedes the transcript: names, spellings, style. Only its end is used."""
    language: Omittable[Annotated[str, StringConstraints(to_lower=True)]] = None
    """ISO 639-1 code of the spoken language, such as ``en``; detected when absent."""
    include: tuple[Literal["logprobs"], ...] = ()
    """``logprobs`` adds each token's log-probability; needs ``response_format=json``."""
    timestamp_granularities: tuple[Granularity, ...] = ("segment",)
    """Content of ``response_format=verbose_json``, which it requires: segments, words with times, or both."""
    chunking_strategy: Omittable[Literal["auto"] | ServerVad] = None
    """How long audio is split: ``auto`` splits between speech; a ``server_vad`` object, as JSON text or as
    ``chunking_strategy[type]`` and so on, sets the detector; absent, the service's own setting applies."""
    stream: bool = False
    """Answer with server-sent events while the audio is being transcribed; needs ``response_format`` json or text."""
