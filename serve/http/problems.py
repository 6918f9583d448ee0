"""The table from exceptions to HTTP responses."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from serve.errors import (
    BodyTooLargeError,
    ContentTypeError,
    DeadlineError,
    DecodedAudioError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    RateLimitError,
    SlowUploadError,
    TranscriberLostError,
    UnauthorizedError,
    UnavailableError,
)
from serve.http.api import ErrorBody, ErrorResponse
from serve.observe.request_log import current_request
from sottovoce.errors import (
    AudioError,
    AudioTooLongError,
    EmptyAudioError,
    LanguageError,
    NonFiniteAudioError,
    UnsupportedOptionError,
    WordTimesUnavailableError,
)

_INVALID = "invalid_request_error"
_SERVER = "server_error"
_RATE = "requests"  # OpenAI's type for a limit on requests, beside "tokens"
RETRY_AFTER_S = 1  # a window takes well below a second on the models this serves on CPU
_LONG_RETRY_AFTER_S = 15  # until a long recording has been transcribed it takes minutes, and each try is a large upload

CROWDED_HEADER = "x-sottovoce-crowded"
"""Header of a refusal for lack of room in the whole gateway: the proxy then refuses others for a moment by itself."""

# The first matching class counts: status, type, code, form field.
_TABLE: tuple[tuple[type[Exception], int, str, str | None, str | None], ...] = (
    (ModelNotFoundError, 404, _INVALID, "model_not_found", "model"),
    (ModelLoadError, 503, _SERVER, "model_unavailable", "model"),
    (InvalidRequestError, 400, _INVALID, None, None),
    (BodyTooLargeError, 413, _INVALID, "request_too_large", "file"),
    (AudioTooLongError, 413, _INVALID, "audio_too_long", "file"),
    (NonFiniteAudioError, 422, _INVALID, "unusable_audio", "file"),  # it decodes to samples that are not finite
    (EmptyAudioError, 422, _INVALID, "unusable_audio", "file"),
    (AudioError, 400, _INVALID, "invalid_audio", "file"),  # as OpenAI answers a file it cannot read
    (WordTimesUnavailableError, 400, _INVALID, "unsupported_value", "timestamp_granularities"),
    (UnsupportedOptionError, 400, _INVALID, "unsupported_value", None),
    (ContentTypeError, 415, _INVALID, "unsupported_content_type", None),
    (LanguageError, 400, _INVALID, "unsupported_language", "language"),
    (UnauthorizedError, 401, _INVALID, "invalid_api_key", None),
    (SlowUploadError, 408, _INVALID, "upload_timeout", "file"),
    (RateLimitError, 429, _RATE, "rate_limit_exceeded", None),
    (OverloadedError, 503, _SERVER, "overloaded", None),
    (NotReadyError, 503, _SERVER, "not_ready", None),
    (TranscriberLostError, 503, _SERVER, "unavailable", None),
    (UnavailableError, 503, _SERVER, "unavailable", None),
    (DeadlineError, 504, _SERVER, "deadline_exceeded", None),
)
_HEADERS: dict[int, dict[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    408: {"connection": "close"},  # else the rest of the slow body would be read to its end
    429: {"retry-after": str(RETRY_AFTER_S)},
    503: {"retry-after": str(RETRY_AFTER_S)},
    504: {"x-should-retry": "false"},  # OpenAI's clients would send the same slow request twice more
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """The response to an error."""

    status: int
    body: ErrorBody
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_response(error: Exception, *, request_id: str) -> JSONResponse:
    """Return the response to any exception, in OpenAI's shape; see ``describe_problem``."""
    problem = describe_problem(error, request_id=request_id)
    headers = {**_HEADERS.get(problem.status, {}), **problem.headers}
    return JSONResponse(ErrorResponse(error=problem.body).model_dump(), status_code=problem.status, headers=headers)


def describe_problem(error: Exception, *, request_id: str) -> Problem:
    """Describe any exception in OpenAI's shape.

    An exception that is not in the table is a fault of ours: 500, logged with its traceback under the request id.
    The code becomes the reason in the request's log line.
    """
    problem = _describe(error, request_id=request_id)
    current_request().fail(problem.body.code)
    return problem


def _describe(error: Exception, *, request_id: str) -> Problem:
    for error_class, status, error_type, code, param in _TABLE:
        if isinstance(error, error_class):
            body = ErrorBody(message=str(error), type=error_type, code=code, param=param)
            if isinstance(error, InvalidRequestError):
                body = body.model_copy(update={"code": error.code, "param": error.param})
            return Problem(status, body, _headers_of(error))
    if isinstance(error, HTTPException):
        return _refused_by_router(error)
    _log.error("request %s failed", request_id, exc_info=error)
    message = f"internal error; look for {request_id} in the service's log"
    return Problem(500, ErrorBody(message=message, type=_SERVER, code="internal_error"))


def _headers_of(error: Exception) -> dict[str, str]:
    """Return the headers of one error, besides those of its status."""
    if isinstance(error, DecodedAudioError):
        return {"retry-after": str(_LONG_RETRY_AFTER_S)}
    return {CROWDED_HEADER: "1"} if type(error) is OverloadedError else {}


def _refused_by_router(error: HTTPException) -> Problem:
    """Describe an unknown path or method."""
    error_type = _INVALID if error.status_code < 500 else _SERVER
    code = "unknown_url" if error.status_code == 404 else None
    return Problem(
        error.status_code, ErrorBody(message=error.detail, type=error_type, code=code), dict(error.headers or {})
    )
