"""The one table from exceptions to responses."""

import logging

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from serve.api import ErrorBody, ErrorResponse
from serve.errors import (
    BodyTooLargeError,
    DeadlineError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
    TranscriberLostError,
    UnauthorizedError,
)
from sottovoce.errors import AudioError, AudioTooLongError, LanguageError

_INVALID = "invalid_request_error"
_SERVER = "server_error"
_RETRY_AFTER_S = "1"  # a window takes well below a second on the models this serves on CPU

# The first class that fits counts: status, type, code, the form field at fault.
_TABLE: tuple[tuple[type[Exception], int, str, str | None, str | None], ...] = (
    (ModelNotFoundError, 404, _INVALID, "model_not_found", "model"),
    (ModelLoadError, 503, _SERVER, "model_unavailable", "model"),
    (InvalidRequestError, 400, _INVALID, None, None),
    (BodyTooLargeError, 413, _INVALID, "request_too_large", "file"),
    (AudioTooLongError, 413, _INVALID, "audio_too_long", "file"),
    (AudioError, 400, _INVALID, "invalid_audio", "file"),
    (LanguageError, 400, _INVALID, "unsupported_language", "language"),
    (UnauthorizedError, 401, _INVALID, "invalid_api_key", None),
    (ClientDisconnect, 400, _INVALID, "client_disconnected", None),
    (OverloadedError, 503, _SERVER, "overloaded", None),
    (TranscriberLostError, 503, _SERVER, "unavailable", None),
    (DeadlineError, 504, _SERVER, "deadline_exceeded", None),
)
_HEADERS: dict[int, dict[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    503: {"retry-after": _RETRY_AFTER_S},
    504: {"x-should-retry": "false"},  # OpenAI's clients would send the same slow request twice more
}

_log = logging.getLogger(__name__)


def problem_response(error: Exception, *, request_id: str) -> JSONResponse:
    """Turn any exception into a response in OpenAI's shape.

    What is not in the table is ours: 500, logged with its traceback under the id that the body names.
    """
    for error_class, status, error_type, code, param in _TABLE:
        if isinstance(error, error_class):
            body = ErrorBody(message=_sentence(error), type=error_type, code=code, param=param)
            if isinstance(error, InvalidRequestError):
                body = body.model_copy(update={"code": error.code, "param": error.param})
            _log.info("request %s: %d %s", request_id, status, type(error).__name__)
            return _respond(status, body)
    if isinstance(error, HTTPException):
        return _http_response(error)
    if isinstance(error, RequestValidationError):
        return _respond(400, ErrorBody(message="the request is not valid", type=_INVALID, code="invalid_request"))
    _log.error("request %s failed", request_id, exc_info=error)
    message = f"internal error; the service's log has it under {request_id}"
    return _respond(500, ErrorBody(message=message, type=_SERVER, code="internal_error"))


def _sentence(error: Exception) -> str:
    """Give the message; a disconnect has none, and nobody reads it."""
    return str(error) or type(error).__name__


def _http_response(error: HTTPException) -> JSONResponse:
    """Answer what the router refuses: unknown paths and methods."""
    error_type = _INVALID if error.status_code < 500 else _SERVER
    response = _respond(error.status_code, ErrorBody(message=error.detail, type=error_type))
    response.headers.update(error.headers or {})
    return response


def _respond(status: int, body: ErrorBody) -> JSONResponse:
    return JSONResponse(ErrorResponse(error=body).model_dump(), status_code=status, headers=_HEADERS.get(status))
