"""Wire models of the API, in OpenAI's shapes."""

from typing import Literal

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict

from serve.http.omittable import Omittable
from sottovoce.schema import Task


class BaseModel(PydanticModel):
    """Base of all wire models. The docstring below a field is its description in the API's schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class DurationUsage(BaseModel):
    """Usage of a request: seconds of audio."""

    type: Literal["duration"] = "duration"
    seconds: float


class TokenUsage(BaseModel):
    """Usage of a streamed request, in the form of OpenAI's ``transcript.text.done`` event."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    """Encoder positions, 50 per second of audio."""
    output_tokens: int
    """Tokens that the decoder generated, timestamps included."""
    total_tokens: int
    """Their sum."""


class Logprob(BaseModel):
    """One token of the transcript with its log-probability."""

    token: str
    logprob: float
    """Natural logarithm of its probability."""
    bytes: list[int]
    """Its UTF-8 bytes; a character split over several tokens is complete only in the bytes."""


class Language(BaseModel):
    """A language that was detected."""

    code: str
    """ISO 639-1."""


class Transcription(BaseModel):
    """``response_format=json``."""

    text: str
    languages: Omittable[list[Language]] = None
    """The detected language when the request names none; empty without speech. Absent for a translation."""
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
    """With its leading space, as Whisper generates it."""
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    """UTF-8 bytes of the text divided by their zlib-compressed bytes; above 2.4 the text repeats itself."""
    no_speech_prob: float


class VerboseTranscription(BaseModel):
    """``response_format=verbose_json``."""

    task: Task
    language: str
    """English name of the spoken language in lower case, or ``english`` for a translation."""
    language_probability: Omittable[float] = None
    """Probability of the detected language among all that the model knows. Absent when the request names the language,
    without speech, and for a translation. An extension of ours: OpenAI's client keeps it as an extra field."""
    duration: float
    """Seconds of audio."""
    text: str
    segments: Omittable[list[TranscriptionSegment]] = None
    """With ``timestamp_granularities=segment``, which is the default."""
    words: Omittable[list[TranscriptionWord]] = None
    """With ``timestamp_granularities=word``."""
    usage: DurationUsage


class TextDelta(BaseModel):
    """An event of ``stream=true``: the next part of the text. All deltas joined are the text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: Omittable[list[Logprob]] = None
    """With ``include=logprobs``: of this part."""


class TextDone(BaseModel):
    """The last event of ``stream=true``: the whole transcript."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    languages: Omittable[list[Language]] = None
    """The detected language when the request names none; empty without speech."""
    logprobs: Omittable[list[Logprob]] = None
    """With ``include=logprobs``: of the whole text."""
    usage: Omittable[TokenUsage] = None
    """Unless ``stream_include_usage`` is false."""


class ModelFile(BaseModel):
    """A file that a model was read from."""

    name: str
    """Relative to the model's folder."""
    bytes: int
    sha256: str
    """In hexadecimal, as ``sha256sum`` prints it."""


class Model(BaseModel):
    """One entry of ``GET /v1/models``; ``variant``, ``source`` and ``files`` are extensions of ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time of its promotion, or else of its files."""
    owned_by: str = "sottovoce"
    variant: str
    """torch, or the name of an export format such as int8."""
    source: str
    """The Hub id, or the last two parts of the folder that it is read from."""
    files: Omittable[list[ModelFile]] = None
    """The files that answer requests now; absent until the model has been loaded."""


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
    """An error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every response other than 200."""

    error: ErrorBody
