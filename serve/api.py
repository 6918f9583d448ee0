"""What goes over the wire, in OpenAI's shapes."""

from typing import Literal

from pydantic import BaseModel


class DurationUsage(BaseModel):
    """What a request is billed by: seconds of audio."""

    type: Literal["duration"] = "duration"
    seconds: float


class Transcription(BaseModel):
    """``response_format=json``."""

    text: str
    usage: DurationUsage


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

    task: Literal["transcribe"] = "transcribe"
    language: str
    """English name, lower case."""
    duration: float
    text: str
    segments: list[TranscriptionSegment]
    usage: DurationUsage


class Model(BaseModel):
    """One entry of ``GET /v1/models``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time at which the service loaded it."""
    owned_by: str = "sottovoce"


class ModelList(BaseModel):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """``GET /healthz``."""

    status: Literal["ok"] = "ok"


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every answer that is not 200."""

    error: ErrorBody
