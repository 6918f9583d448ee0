"""One log line and the metrics of each request, however it ends.

The line is JSON. It holds sizes, durations and names from this service's own tables, and never a text, an API key, a
file name or a prompt. The request id is the client's, if it sent one, reduced to letters, digits and ``-_.``.
"""

import logging
import time
from collections.abc import Collection
from contextvars import ContextVar
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, PrivateAttr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.observe.metrics import (
    AUDIO_DECODE_SECONDS,
    AUDIO_SECONDS,
    FIRST_DELTA_SECONDS,
    NO_MODEL,
    REQUEST_SECONDS,
    REQUESTS,
    RTFX,
    TRANSCRIPTS,
    WORK_SECONDS,
    read_key,
    record,
)
from serve.transcript import Transcription
from sottovoce.schema import WindowResult

_OTHER_ROUTE = "other"
_OK = "ok"
_CANCELLED, _CLIENT_LEFT = "cancelled", 499  # nginx's status for a client that closed its connection

Lap: TypeAlias = Literal["upload_s", "model_s", "decode_s"]

_log = logging.getLogger(__name__)


class RequestLine(BaseModel):
    """What is known of one request; filled while it is answered, and logged at its end without what is None."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    event: Literal["request"] = "request"
    """Always `request`."""
    id: str = ""
    """The request id, as in the response's `x-request-id`."""
    route: str = _OTHER_ROUTE
    """Path of the route, or `other`."""
    status: int = 0
    """HTTP status; 499 for a client that left before the response."""
    reason: str = _OK
    """The error's `code`, also of a stream that failed after its status; `ok`; or `cancelled`."""
    model: str | None = None
    """Name of the model that answers, not as the client spelled it."""
    variant: str | None = None
    """torch, or the name of an export format such as int8."""
    release: str | None = None
    """Version and digest of the model's files."""
    is_stream: bool | None = None
    """Whether events were asked for."""
    request_bytes: int = 0
    """Bytes of the body that were received."""
    response_bytes: int = 0
    """Bytes of the body that were sent."""
    audio_s: float | None = None
    """Seconds of the recording."""
    windows: int | None = None
    """Windows decoded."""
    tokens: int | None = None
    """Tokens of those windows."""
    is_empty: bool | None = None
    """Whether the transcript has no text."""
    upload_s: float | None = None
    """Seconds until the form was read."""
    model_s: float | None = None
    """Seconds until the model was found, and loaded if it had to be."""
    decode_s: float | None = None
    """Seconds until the recording was decoded."""
    first_delta_s: float | None = None
    """Seconds from the request to a stream's first event."""
    total_s: float = 0.0
    """Seconds from the request's first byte to the end of its response."""

    _started: float = PrivateAttr(default_factory=time.monotonic)
    _lap_started: float = PrivateAttr(default_factory=time.monotonic)
    _is_complete: bool = PrivateAttr(default=False)

    def end_lap(self, name: Lap) -> None:
        """Note the seconds since the last lap, or since the start."""
        now = time.monotonic()
        setattr(self, name, now - self._lap_started)
        self._lap_started = now

    def take_form(self, *, is_stream: bool) -> None:
        """Note that the form was read."""
        self.is_stream = is_stream
        self.end_lap("upload_s")

    def take_model(self, key: str) -> None:
        """Note the model that answers, by its key."""
        self.model, self.variant, self.release = read_key(key)
        self.end_lap("model_s")

    def take_window(self, result: WindowResult) -> None:
        """Note a window's result."""
        self.windows = (self.windows or 0) + 1
        self.tokens = (self.tokens or 0) + len(result.token_ids)

    def take_work(self, transcription: Transcription) -> None:
        """Note what was transcribed, however the request ended."""
        self.audio_s = transcription.duration_s
        self.windows, self.tokens = self.windows or 0, self.tokens or 0
        self.is_empty = not transcription.has_text

    def fail(self, code: str | None) -> None:
        """Note the code of the error that the client is told."""
        self.reason = code or _OTHER_ROUTE

    def take_message(self, message: Message) -> None:
        """Note what a message of the response shows."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_complete = True
        sent = len(message.get("body", b""))
        self.response_bytes += sent
        if self.is_stream and sent and self.first_delta_s is None:
            self.first_delta_s = time.monotonic() - self._started

    def end(self) -> None:
        """Log the line, and record the metrics."""
        self.total_s = time.monotonic() - self._started
        if not self._is_complete and self.reason == _OK:  # a client that leaves a stream ends it without an exception
            self.status, self.reason = self.status or _CLIENT_LEFT, _CANCELLED
        _log.info("%s", _rounded(self).model_dump_json(exclude_none=True))
        _record(self)


_current: ContextVar[RequestLine] = ContextVar("request_line")


def current_request() -> RequestLine:
    """Return the line of the request that this task answers; one that is never logged outside a request."""
    return _current.get(None) or RequestLine()


class RequestLog:
    """ASGI middleware around everything else. Probes have no line: they come every second and say nothing."""

    def __init__(self, app: ASGIApp, *, paths: Collection[str], quiet_paths: Collection[str]) -> None:
        """Wrap an application.

        Args:
            app: the application.
            paths: routes that are named; any other path would be a client's text.
            quiet_paths: routes that are neither logged nor counted.
        """
        self._app = app
        self._paths = frozenset(paths)
        self._quiet_paths = frozenset(quiet_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in self._quiet_paths:
            await self._app(scope, receive, send)
            return
        line = RequestLine()
        token = _current.set(line)

        async def receive_counted() -> Message:
            message = await receive()
            line.request_bytes += len(message.get("body", b""))
            return message

        async def send_noted(message: Message) -> None:
            await send(message)
            line.take_message(message)  # what a client that left did not take was not sent

        try:
            await self._app(scope, receive_counted, send_noted)
        finally:
            _current.reset(token)
            line.id = scope.get("state", {}).get("request_id", "")
            line.route = self._name_route(scope)
            line.end()

    def _name_route(self, scope: Scope) -> str:
        """Return the path of the matched route, ``/v1/models/{model_id}`` for all models."""
        if scope["path"] in self._paths:
            return str(scope["path"])
        path = str(getattr(scope.get("route"), "path", _OTHER_ROUTE))
        return path if path in self._paths else _OTHER_ROUTE


def _rounded(line: RequestLine) -> RequestLine:
    """Return a copy with milliseconds: more digits say nothing."""
    seconds = {name: round(value, 3) for name, value in line if isinstance(value, float)}
    return line.model_copy(update=seconds)


def _record(line: RequestLine) -> None:
    model = {"model": line.model or NO_MODEL, "variant": line.variant or NO_MODEL}
    record(REQUESTS, 1, route=line.route, status=str(line.status), reason=line.reason, **model)
    if line.decode_s is not None:
        record(AUDIO_DECODE_SECONDS, line.decode_s, **model)
    if line.first_delta_s is not None:
        record(FIRST_DELTA_SECONDS, line.first_delta_s, **model)
    if line.audio_s is None or line.reason != _OK:
        return
    total_s = max(line.total_s, 1e-6)  # above 0 for the division below
    record(REQUEST_SECONDS, total_s, **model)
    record(WORK_SECONDS, total_s, **model)
    record(AUDIO_SECONDS, line.audio_s, **model)
    record(RTFX, line.audio_s / total_s, **model)
    record(TRANSCRIPTS, 1, outcome="empty" if line.is_empty else "text", **model)
