"""Response formats: json, text, srt, verbose_json and vtt; and a model as it is listed."""

from collections.abc import Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

from serve.http.api import (
    BaseModel,
    DurationUsage,
    Model,
    ModelFile,
    Transcription,
    TranscriptionSegment,
    TranscriptionWord,
    VerboseTranscription,
)
from serve.http.events import segment_languages, segment_logprobs
from serve.http.speech_request import SpeechRequest
from serve.models.catalog import ListedModel
from sottovoce.recognize.longform.segment import Segment, Transcript
from sottovoce.schema import FRAMES_PER_SECOND
from sottovoce.text.subtitles import Cue, write_srt, write_vtt


def format_model(model: ListedModel) -> Model:
    """Build one entry of the list of models."""
    files = [ModelFile(name=file.name, bytes=file.num_bytes, sha256=file.sha256) for file in model.files]
    return Model(id=model.id, created=model.created, variant=model.variant, source=model.source, files=files or None)


def format_transcript(transcript: Transcript, request: SpeechRequest, *, language_names: Mapping[str, str]) -> Response:
    """Build the response.

    Args:
        transcript: of the recording.
        request: what the client asked for.
        language_names: English name of each ISO 639-1 code.
    """
    match request.response_format:
        case "text":
            return PlainTextResponse(f"{transcript.text}\n")
        case "srt":
            return PlainTextResponse(write_srt(_cues(transcript)))
        case "vtt":
            return PlainTextResponse(write_vtt(_cues(transcript)), media_type="text/vtt")
        case "json":
            return _respond(_plain(transcript, request))
        case "verbose_json":
            return _respond(_verbose(transcript, request, language_names))


def _plain(transcript: Transcript, request: SpeechRequest) -> Transcription:
    logprobs = [token for segment in transcript.segments for token in segment_logprobs(segment)]
    languages = next(filter(None, map(segment_languages, transcript.segments)), [])
    return Transcription(
        text=transcript.text,
        languages=languages if request.wants_language else None,
        logprobs=logprobs if request.wants_logprobs else None,
        usage=DurationUsage(seconds=transcript.duration_s),
    )


def _verbose(transcript: Transcript, request: SpeechRequest, language_names: Mapping[str, str]) -> VerboseTranscription:
    language = "english" if request.task == "translate" else language_names.get(transcript.language)
    probabilities = [
        segment.language_probability for segment in transcript.segments if segment.language_probability is not None
    ]
    segments = [_segment(index, segment) for index, segment in enumerate(transcript.segments)]
    words = [
        TranscriptionWord(word=word.text, start=word.start_s, end=word.end_s)
        for segment in transcript.segments
        for word in segment.words
    ]
    return VerboseTranscription(
        task=request.task,
        language=language or transcript.language,
        language_probability=probabilities[0] if probabilities and request.wants_language else None,
        duration=transcript.duration_s,
        text=transcript.text,
        segments=segments if request.wants_segments else None,
        words=words if request.wants_words else None,
        usage=DurationUsage(seconds=transcript.duration_s),
    )


def _segment(index: int, segment: Segment) -> TranscriptionSegment:
    return TranscriptionSegment(
        id=index,
        seek=round(segment.seek_s * FRAMES_PER_SECOND),
        start=segment.start_s,
        end=segment.end_s,
        text=segment.text,
        tokens=list(segment.token_ids),
        temperature=segment.temperature,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
    )


def _cues(transcript: Transcript) -> list[Cue]:
    return [Cue(segment.start_s, segment.end_s, segment.text) for segment in transcript.segments]


def _respond(body: BaseModel) -> JSONResponse:
    """Return the response as JSON without the fields that were not requested; no field is null."""
    return JSONResponse(body.model_dump(exclude_none=True))
