"""The forms of the audio routes: every field with its range and description, validated here and shown in the schema."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, InstanceOf, WithJsonSchema
from starlette.datastructures import UploadFile

from serve.http.omittable import Omittable
from sottovoce.config import Config
from sottovoce.recognize.longform.options import LongFormOptions

ResponseFormat: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity: TypeAlias = Literal["segment", "word"]

_Upload: TypeAlias = Annotated[InstanceOf[UploadFile], WithJsonSchema({"type": "string", "format": "binary"})]

_CHUNKED = LongFormOptions()  # whose defaults are OpenAI's: 300 ms, 200 ms, 0.5
_MAX_VAD_MS = 30_000  # a model's longest context; longer padding and pauses would leave nowhere to cut
_MAX_TEXTS = 10  # of one window side by side: each costs as much as a window of another request
_MAX_SEED = 2**63 - 1  # as in vLLM's form


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
    hotwords: str = ""
    """Words to expect, such as names; they precede ``prompt``. An extension, as in faster-whisper and vLLM."""
    vad_filter: Omittable[bool] = None
    """true decodes only what the speech detector finds, cut as by ``chunking_strategy=auto``. false decodes everything
    but silence, window after window. Absent, the service's setting applies. An extension, as in faster-whisper."""
    without_timestamps: Omittable[bool] = None
    """true: the model generates no timestamps, so that a segment is a window. false: it generates them for json and
    text, too. Absent, it generates them where the answer has segments. An extension, as in faster-whisper."""
    beam_size: int = Field(default=1, ge=1, le=_MAX_TEXTS)
    """Texts that beam search keeps at temperature 0; 1 decodes greedily. An extension, as in faster-whisper."""
    best_of: int = Field(default=1, ge=1, le=_MAX_TEXTS)
    """Texts sampled at a temperature above 0, of which the likeliest is kept. An extension, as in faster-whisper."""
    seed: int = Field(default=0, ge=0, le=_MAX_SEED)
    """Seed of sampling; the same seed samples the same text. An extension, as in vLLM."""


class TranslationForm(SpeechForm):
    """Speech in any language that the model knows, translated into English.

    As in OpenAI's route there is no ``language`` (it is detected), no ``stream`` and no ``timestamp_granularities``;
    a field that is not listed here is refused.
    """

    prompt: str = ""
    """English text that precedes the translation: names, spellings, style. Only its end is used."""
    to_language: Omittable[str] = None
    """``en`` or ``English``, the only language that Whisper translates into. An extension, as in vLLM."""


class TranscriptionForm(SpeechForm):
    """Speech transcribed in its own language.

    Lists may be sent as ``name`` or ``name[]``: once for each item, separated by commas, or as a JSON list. A field
    that is not listed here is refused. For fields of OpenAI's other models and of other servers, the error names what
    to send instead.
    """

    prompt: str = ""
    """Text in the audio's language that precedes the transcript: names, spellings, style. Only its end is used."""
    language: Omittable[str] = None
    """The spoken language: a code such as ``en``, a locale such as ``pt-BR``, or an English name; detected when absent
    or ``auto``."""
    include: tuple[Literal["logprobs"], ...] = ()
    """``logprobs`` adds each token's log-probability; needs ``response_format=json``."""
    timestamp_granularities: tuple[Granularity, ...] = ("segment",)
    """Content of ``response_format=verbose_json``: segments, words with times, or both. Words require that format;
    ``segment``, the default, may be sent with any."""
    chunking_strategy: Omittable[Literal["auto"] | ServerVad] = None
    """How long audio is split: ``auto`` splits between speech; a ``server_vad`` object, as JSON text or as
    ``chunking_strategy[type]`` and so on, sets the detector; absent, the service's own setting applies."""
    stream: bool = False
    """Answer with server-sent events while the audio is being transcribed; needs ``response_format`` json or text."""
    stream_include_usage: Omittable[bool] = None
    """false leaves usage out of a stream's last event, which has it otherwise. An extension, as in vLLM."""


_PENALTIES = "there are no penalties: at temperature 0, a text that repeats itself is decoded at the next temperature"
_SAMPLING = "sampling chooses among all tokens; set temperature"
_SPEAKERS = "speakers are not told apart"
_DETECTOR = "send chunking_strategy, a server_vad object with threshold, prefix_padding_ms and silence_duration_ms"

INSTEAD: Final[Mapping[str, str]] = {
    # OpenAI's, for its other models
    "languages": "send one as language, or none to detect it",
    "keywords": "send them as hotwords or in prompt",
    "known_speaker_names": _SPEAKERS,
    "known_speaker_references": _SPEAKERS,
    # vLLM's
    "to_language": "a transcript is in the spoken language; POST /v1/audio/translations translates into English",
    "use_beam_search": "send beam_size",
    "n": "one text is returned; send beam_size or best_of for the number that it is chosen from",
    "length_penalty": "texts are compared by their mean log-probability",
    "top_p": _SAMPLING,
    "top_k": _SAMPLING,
    "min_p": _SAMPLING,
    "repetition_penalty": _PENALTIES,
    "frequency_penalty": _PENALTIES,
    "presence_penalty": _PENALTIES,
    "no_repeat_ngram_size": _PENALTIES,
    "max_completion_tokens": "a window's text is as long as the decoder allows; send shorter audio",
    "stream_continuous_usage_stats": "the last event has the usage; leave it out",
    "vllm_xargs": "send the fields that /docs lists",
    # those of faster-whisper, speaches and whisper.cpp's server
    "initial_prompt": "send prompt",
    "word_timestamps": "send timestamp_granularities[]=word with response_format=verbose_json",
    "task": "POST /v1/audio/translations translates, and POST /v1/audio/transcriptions transcribes",
    "translate": "POST /v1/audio/translations translates",
    "no_timestamps": "send without_timestamps",
    "vad_parameters": _DETECTOR,
    "vad": "send vad_filter",
    "batch_size": "windows of all requests are batched together; the service's setting is batching.max_batch_size",
    "condition_on_previous_text": "the service's setting is long_form.condition_on_previous_text",
    "diarization": _SPEAKERS,
    "diarize": _SPEAKERS,
}
"""What to send instead of a field that is not supported."""
