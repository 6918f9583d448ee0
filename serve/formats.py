"""A transcript in the format a client asked for."""

import zlib
from collections.abc import Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

from serve.api import DurationUsage, Transcription, TranscriptionSegment, VerboseTranscription
from serve.fields import ResponseFormat
from serve.transcript import TimedWindow, Transcript
from sottovoce.schema import FRAMES_PER_SECOND


def format_transcript(
    transcript: Transcript, response_format: ResponseFormat, *, language_names: Mapping[str, str]
) -> Response:
    """Build the response.

    Args:
        transcript: what was heard.
        response_format: as the client asked.
        language_names: English name of each ISO 639-1 code.
    """
    if response_format == "text":
        return PlainTextResponse(f"{transcript.text}\n")
    usage = DurationUsage(seconds=transcript.duration_s)
    if response_format == "json":
        return JSONResponse(Transcription(text=transcript.text, usage=usage).model_dump())
    verbose = VerboseTranscription(
        language=language_names.get(transcript.language, transcript.language),
        duration=transcript.duration_s,
        text=transcript.text,
        segments=[_segment(index, window) for index, window in enumerate(transcript.windows)],
        usage=usage,
    )
    return JSONResponse(verbose.model_dump())


def compression_ratio(text: str) -> float:
    """Measure how much a text repeats itself, as Whisper does: bytes over zlib-compressed bytes."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


def _segment(index: int, window: TimedWindow) -> TranscriptionSegment:
    result = window.result
    return TranscriptionSegment(
        id=index,
        seek=round(window.start_s * FRAMES_PER_SECOND),
        start=window.start_s,
        end=window.end_s,
        text=f" {result.text}" if result.text else "",
        tokens=list(result.token_ids),
        temperature=0.0,
        avg_logprob=result.avg_logprob,
        compression_ratio=compression_ratio(result.text),
        no_speech_prob=result.no_speech_prob,
    )
