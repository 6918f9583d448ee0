"""What goes over the wire, in OpenAI's shapes."""

from typing import Literal

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict

from serve.http.omittable import Omittable
from sottovoce.schema import Task


class BaseModel(PydanticModel):
    """A part of an answer; the docstring below a field is its description in the API's schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class DurationUsage(BaseModel):
    """What a request is billed by: seconds of audio."""

    type: Literal["duration"] = "duration"
    seconds: float


class TokenUsage(BaseModel):
    """What a streamed request used, in the only form OpenAI's ``transcript.text.done`` event has for it."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    """Positions of sound the encoder read, 50 a second."""
    output_tokens: int
    """Tokens the decoder wrote into the transcript, times included."""
    total_tokens: int
    """Both together."""


class Logprob(BaseModel):
    """One token of the transcript and how sure the model was of it."""

    token: str
    logprob: float
    """Natural logarithm of its probability."""
    bytes: list[int]
    """Its UTF-8 bytes: a character of several tokens is whole only in the bytes."""


class Language(BaseModel):
    """A language that was detected."""

    code: str
    """ISO 639-1."""


class Transcription(BaseModel):
    """``response_format=json``."""

    text: str
    languages: Omittable[list[Language]] = None
    """Without ``language``: the one detected, or none where nobody speaks. Not of a translation."""
    logprobs: Omittable[list[Logprob]] = None
    """With ``include=logprobs``."""
    usage: DurationUsage


class TranscriptionWord(BaseModel):
    """One word; times in seconds from the start of the recording."""

    word: str
    start: float
    end: float


class TranscriptionSegment(BaseModel):
    """One segment of ``verbose_json``; times in seconds from the start of the recording."""

    id: int
    seek: int
    """Frame (10 ms) of the recording where the window starts."""
    start: float
    end: float
    text: str
    """With its leading space, as Whisper writes it."""
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    """UTF-8 bytes of the text over their zlib-compressed bytes; above 2.4 the text repeats itself."""
    no_speech_prob: float


class VerboseTranscription(BaseModel):
    """``response_format=verbose_json``."""

    task: Task
    language: str
    """English name, lower case: of the language spoken, or ``english`` for a translation."""
    language_probability: Omittable[float] = None
    """How likely the language is among all the model knows, where it was detected: without ``language``, and where
    somebody speaks. Not of a translation. OpenAI's answer has no such field; its client keeps it as an extra one."""
    duration: float
    """Seconds of audio."""
    text: str
    segments: Omittable[list[TranscriptionSegment]] = None
    """With ``timestamp_granularities=segment``, which is the default."""
    words: Omittable[list[TranscriptionWord]] = None
    """With ``timestamp_granularities=word``."""
    usage: DurationUsage


class TextDelta(BaseModel):
    """An event of ``stream=true``: the next piece of the transcript; all of them together are its text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: Omittable[list[Logprob]] = None
    """With ``include=logprobs``: of this piece."""


class TextDone(BaseModel):
    """The last event of ``stream=true``: the whole transcript."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    languages: Omittable[list[Language]] = None
    """Without ``language``: the one detected, or none where nobody speaks."""
    logprobs: Omittable[list[Logprob]] = None
    """With ``include=logprobs``: of the whole text."""
    usage: TokenUsage


class Model(BaseModel):
    """One entry of ``GET /v1/models``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time at which it was promoted, or else its files were written."""
    owned_by: str = "sottovoce"


class ModelList(BaseModel):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """``GET /healthz``: the gateway runs."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """``GET /readyz``: a transcriber answers."""

    status: Literal["ready"] = "ready"


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every answer that is not 200."""

    error: ErrorBody
