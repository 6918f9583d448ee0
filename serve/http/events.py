"""A transcript as server-sent events with OpenAI's names: a delta for each segment, and the whole text at the end.

Source: transcript.text.delta and transcript.text.done in OpenAI's openapi.yaml; the client's ``_streaming.py`` reads
``data:`` lines, and raises where one holds an ``error``.
"""

import json
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import TypeAlias

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve.http.api import ErrorResponse, Language, Logprob, TextDelta, TextDone, TokenUsage
from serve.http.deadline import Deadline
from serve.http.problems import describe_problem
from sottovoce.recognize.longform.segment import Segment, deltas
from sottovoce.schema import POSITIONS_PER_SECOND

Event: TypeAlias = TextDelta | TextDone

# A proxy that buffers responses would hold every event back until the last one.
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def transcript_events(
    segments: AsyncGenerator[Segment, None],
    *,
    duration_s: float,
    wants_language: bool,
    wants_logprobs: bool,
    wants_usage: bool = True,
) -> AsyncGenerator[Event, None]:
    """Yield the events of a transcript as its segments arrive.

    Args:
        segments: in order; closed at the end.
        duration_s: of the recording.
        wants_language: whether the last event names the language that was detected.
        wants_logprobs: whether events carry tokens' log-probabilities.
        wants_usage: whether the last event has the usage.

    Yields:
        A delta for each segment with text; together they are the text of the last event, ``transcript.text.done``.
    """
    waiting: deque[Segment] = deque()
    pieces = deltas(iter(waiting.popleft, None))  # reads one segment for each delta it yields
    text: list[str] = []
    languages: list[Language] = []
    logprobs: list[Logprob] = []
    num_tokens = 0
    async with aclosing(segments):
        async for segment in segments:
            waiting.append(segment)
            text.append(next(pieces))
            of_piece = segment_logprobs(segment)
            logprobs += of_piece
            languages = languages or segment_languages(segment)
            num_tokens += len(segment.token_ids)
            if text[-1]:
                yield TextDelta(delta=text[-1], logprobs=of_piece if wants_logprobs else None)
    yield TextDone(
        text="".join(text),
        languages=languages if wants_language else None,
        logprobs=logprobs if wants_logprobs else None,
        usage=_token_usage(duration_s, num_tokens) if wants_usage else None,
    )


def segment_languages(segment: Segment) -> list[Language]:
    """Return a segment's language, if it was detected, in OpenAI's shape."""
    return [] if segment.language_probability is None else [Language(code=segment.language)]


def segment_logprobs(segment: Segment) -> list[Logprob]:
    """Return a segment's log-probabilities in OpenAI's shape."""
    return [
        Logprob(token=token.text, logprob=token.logprob, bytes=list(token.utf8)) for token in segment.token_logprobs
    ]


class EventStream(StreamingResponse):
    """The response to ``stream=true``. It releases the request's resources when it ends or the client disconnects."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: Event,
        rest: AsyncGenerator[Event, None],
        *,
        deadline: Deadline,
        held: AsyncExitStack,
        request_id: str,
    ) -> None:
        """Build the response.

        Args:
            first: what has been waited for, so that what goes wrong before it is a status and not an event.
            rest: the other events.
            deadline: of the request.
            held: closed at the end, ``rest`` with it.
            request_id: for the log, should the rest fail.
        """
        self._lines = _encode(first, rest, deadline=deadline, request_id=request_id)
        self._held = held
        super().__init__(self._lines, headers=_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with self._held, aclosing(self._lines):
            await super().__call__(scope, receive, send)


async def _encode(
    first: Event, rest: AsyncGenerator[Event, None], *, deadline: Deadline, request_id: str
) -> AsyncGenerator[bytes, None]:
    """Encode events as lines. An error becomes the last event, since the status has already been sent."""
    yield _line(first)
    try:
        while True:
            async with deadline.held():
                event = await anext(rest, None)
            if event is None:
                return
            yield _line(event)
    except Exception as error:  # noqa: BLE001 - the HTTP edge of a response that has already started
        yield _line(ErrorResponse(error=describe_problem(error, request_id=request_id).body))


def _line(content: Event | ErrorResponse) -> bytes:
    """Encode one event in ASCII: some readers treat U+2028 as the end of a line."""
    is_error = isinstance(content, ErrorResponse)
    return f"data: {json.dumps(content.model_dump(exclude_none=not is_error))}\n\n".encode("ascii")


def _token_usage(duration_s: float, num_tokens: int) -> TokenUsage:
    num_positions = round(duration_s * POSITIONS_PER_SECOND)
    return TokenUsage(input_tokens=num_positions, output_tokens=num_tokens, total_tokens=num_positions + num_tokens)
