"""Middleware of Serve's HTTP proxy: send a request to another gateway when its gateway died, before anything was sent.

A crowd is refused here, too; see ``crowd``.

Serve answers such a request with a bare 500, and its own refusals are plain text. Here the request is sent again, with
the part of its body that has been read, and what cannot be answered has OpenAI's error format.
"""

import asyncio
import logging
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import CrowdedError, DeadlineError, UnavailableError
from serve.http.problems import CROWDED_HEADER, problem_response
from serve.lifecycle.crowd import Crowd, LargeBodies, Visit, max_working_from_environment

MIDDLEWARE_PATH = "serve.lifecycle.resending:proxy_middleware"
"""What Serve's proxy imports; see ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``."""

_MAX_KEPT_BYTES = 256 * 2**20  # bodies of all requests of one proxy; a request beyond it is not sent again
_MAX_ATTEMPTS = 6  # gateways may die one after the other while a request is with them
_BACKOFF_S = 0.1  # doubled each time
_NO_ROUTE_S = 10.0  # a restarted proxy learns its routes from the controller, which may be restarting as well
_NO_ROUTE_POLL_S = 0.1
_UPLOADS = "POST"
_SERVES_REFUSALS = frozenset({404, 408, 429, 503})
_REQUEST_ID_HEADER = "x-request-id"
_RETRY_AFTER_HEADER = "retry-after"
_SERVES_PATHS = "/-/"  # health and routes of the proxy itself

_log = logging.getLogger("ray.serve")  # the proxy's own log


def proxy_middleware() -> list[Middleware]:
    """Return the middleware of Serve's HTTP proxy."""
    return [Middleware(Resending)]


class Resending:
    """ASGI middleware around Serve's proxy. The deadline of a request counts anew with each gateway."""

    def __init__(self, app: ASGIApp, *, max_kept_bytes: int = _MAX_KEPT_BYTES, crowd: Crowd | None = None) -> None:
        """Wrap the proxy.

        Args:
            app: the proxy.
            max_kept_bytes: memory for the bodies of unanswered requests.
            crowd: by default one with the limit that the environment names.
        """
        self._app = app
        self._budget = _Budget(max_kept_bytes)
        self._crowd = crowd or Crowd(max_working_from_environment())
        self._large_bodies = LargeBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(_SERVES_PATHS):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        if scope["method"] != _UPLOADS:
            await self._pass_on(scope, _KeptBody(receive, self._budget, self._large_bodies), send, request_id)
            return
        if self._crowd.is_full:
            wait_s = self._crowd.retry_after_s()
            await _refuse(CrowdedError(), request_id, scope, receive, send, retry_after_s=wait_s)
            return
        visit = Visit(self._crowd)
        try:
            body = _KeptBody(receive, self._budget, self._large_bodies, visit)
            await self._pass_on(scope, body, self._crowd_control(send), request_id)
        finally:
            visit.end()

    def _crowd_control(self, send: Send) -> Send:
        """Note what becomes of an upload; one that is refused for lack of room learns when to come again."""

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if CROWDED_HEADER in headers:
                    self._crowd.note_refusal()
                    headers[_RETRY_AFTER_HEADER] = str(self._crowd.retry_after_s())
                elif message["status"] == 200:
                    self._crowd.note_answer()
            await send(message)

        return noting_send

    async def _pass_on(self, scope: Scope, body: "_KeptBody", send: Send, request_id: str) -> None:
        started = time.monotonic()
        try:
            answer = await self._try_gateways(scope, body, send)
        finally:
            body.drop()
        if answer.has_started or body.client_has_left:
            return
        _log.warning("request %s got no answer from a gateway (%s)", request_id, answer.refusal or "it died")
        await _refuse(answer.problem(time.monotonic() - started), request_id, scope, body.replay(), send)

    async def _try_gateways(self, scope: Scope, body: "_KeptBody", send: Send) -> "_Answer":
        """Send the request until a gateway answers. Return the last answer, which may be Serve's refusal or none."""
        attempt, no_route_until = 0, time.monotonic() + _NO_ROUTE_S
        while True:
            answer = _Answer(send, body)
            await self._app(dict(scope), body.replay(), answer.send)
            if answer.has_started or body.client_has_left or not body.is_whole:
                return answer
            if answer.refusal == 404 and time.monotonic() < no_route_until:
                await asyncio.sleep(_NO_ROUTE_POLL_S)
                continue
            attempt += 1
            if answer.refusal is not None or attempt == _MAX_ATTEMPTS:
                return answer
            await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 1))


class _Answer:
    """What one attempt sent. Serve's own refusals are withheld."""

    def __init__(self, send: Send, body: "_KeptBody") -> None:
        self.has_started = False
        self.refusal: int | None = None
        """Status of Serve's own refusal."""
        self._send = send
        self._body = body

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = Headers(raw=message.get("headers", []))
            is_text = headers.get("content-type", "").startswith("text/plain")
            if message["status"] in _SERVES_REFUSALS and is_text:
                self.refusal = message["status"]
            else:
                self.has_started = True
                self._body.drop()
        if self.refusal is None:
            await self._send(message)

    def problem(self, elapsed_s: float) -> Exception:
        """Return the error of a request that no gateway answered."""
        if self.refusal == 408:
            return DeadlineError(round(elapsed_s))
        if self.refusal == 404:
            return UnavailableError("the service is starting or stopping")
        if self.refusal is not None:
            return UnavailableError("every gateway is at its limit, or none runs")
        return UnavailableError("the gateway stopped while it handled this request")


class _Budget:
    """Bytes that may still be kept."""

    def __init__(self, num_bytes: int) -> None:
        self.free_bytes = num_bytes


class _KeptBody:
    """The part of a request's body that was read, until its answer starts."""

    def __init__(
        self, receive: Receive, budget: _Budget, large_bodies: LargeBodies, visit: Visit | None = None
    ) -> None:
        self.is_whole = True
        """False when a part was not kept for lack of memory."""
        self.client_has_left = False
        self._receive = receive
        self._budget = budget
        self._large_bodies = large_bodies
        self._visit = visit
        self._num_received = 0
        self._messages: list[Message] = []
        self._num_bytes = 0
        self._is_dropped = False

    def replay(self) -> Receive:
        """Return a channel that repeats what was read and then reads on."""
        position = 0

        async def receive() -> Message:
            nonlocal position
            if position < len(self._messages):
                position += 1
                return self._messages[position - 1]
            message = await self._receive()
            num_bytes = len(message.get("body", b""))
            await self._large_bodies.passing(num_bytes, before=self._num_received)
            self._num_received += num_bytes
            self._keep(message)
            position = len(self._messages)
            return message

        return receive

    def drop(self) -> None:
        """Free the memory and keep no more."""
        self._budget.free_bytes += self._num_bytes
        self._messages, self._num_bytes, self._is_dropped = [], 0, True

    def _keep(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.client_has_left = True
            return
        if self._visit is not None and not message.get("more_body", False):
            self._visit.arrived()
        if self._is_dropped:
            return
        size = len(message.get("body", b""))
        if size > self._budget.free_bytes:
            self.is_whole = False
            self.drop()
            return
        self._budget.free_bytes -= size
        self._num_bytes += size
        self._messages.append(message)


async def _refuse(
    error: Exception, request_id: str, scope: Scope, receive: Receive, send: Send, *, retry_after_s: int | None = None
) -> None:
    """Answer in OpenAI's shape, without a gateway."""
    response = problem_response(error, request_id=request_id)
    response.headers[_REQUEST_ID_HEADER] = request_id
    if retry_after_s is not None:
        response.headers[_RETRY_AFTER_HEADER] = str(retry_after_s)
    await response(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """Return the request's id; one that has none gets one, so that all attempts share it."""
    headers = MutableHeaders(scope=scope)
    return headers.setdefault(_REQUEST_ID_HEADER, uuid.uuid4().hex)
