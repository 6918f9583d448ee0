"""Cross-origin requests: pages of other origins may call the service from a browser."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from serve.http.api import ErrorBody, ErrorResponse
from serve.http.edge import REQUEST_ID_HEADER

_METHODS = ("GET", "POST")
_SHOWN_HEADERS = (REQUEST_ID_HEADER, "retry-after", "x-should-retry")  # a page cannot read others than the basic ones


class Cors(CORSMiddleware):
    """Answer preflights, and let pages of the allowed origins read answers.

    No cookie counts here, so that a page can do no more than it could with a key that it was given.
    """

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        """Wrap an application.

        Args:
            app: the application, its errors included.
            origins: allowed origins, or ``*`` for all.
        """
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=_METHODS,
            allow_headers=("*",),  # OpenAI's client in a browser sends a dozen of its own
            allow_private_network="*" not in origins,  # only named pages reach from the internet into this network
            expose_headers=_SHOWN_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight; a refusal has OpenAI's shape."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        reason = bytes(answer.body).decode("utf-8")
        message = f"{reason}; the service's setting allow_origins lists the origins that may call it"
        body = ErrorBody(message=message, type="invalid_request_error", code="cors_refused")
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return JSONResponse(ErrorResponse(error=body).model_dump(), status_code=answer.status_code, headers=headers)
