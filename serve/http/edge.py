"""The outermost middleware: request ids, API keys, clients that leave, and responses for exceptions."""

import logging
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.keys import ApiKeys
from serve.http.problems import problem_response

REQUEST_ID_HEADER = "x-request-id"
DOCS_FILES = "/docs/files/"
"""Where the documentation's own script and style are, so that it needs nothing from another host."""
_MAX_REQUEST_ID_LENGTH = 128
# The documentation is the same for every service, and a browser that opens a page has no way to send a key.
_DOCS_PATHS = frozenset({"/docs", "/openapi.json"})

_log = logging.getLogger(__name__)


class Edge:
    """ASGI middleware around every route."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, public_paths: Collection[str], is_behind_serve: bool) -> None:
        """Wrap an application.

        Args:
            app: the routes.
            keys: the accepted keys.
            public_paths: routes that need no key, besides the documentation.
            is_behind_serve: whether Serve's proxy adds the request id to responses itself.
        """
        self._app = app
        self._keys = keys
        self._public_paths = _DOCS_PATHS | set(public_paths)
        self._writes_id = not is_behind_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. An exception before the response starts becomes an error response.

        When the client has left, whatever goes wrong after it is no fault of ours; the line of the request says 499.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, writes_id=self._writes_id)
        try:
            if scope["path"] not in self._public_paths and not scope["path"].startswith(DOCS_FILES):
                scope["state"]["client"] = self._find_client(scope)
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the one place where any exception becomes a response
            if exchange.has_left:  # the request's own line tells of it
                return
            if exchange.has_started:
                _log.exception("request %s failed after its response had started", exchange.request_id)
                return
            response = problem_response(error, request_id=exchange.request_id)
            await response(scope, receive, exchange.send)

    def _find_client(self, scope: Scope) -> str:
        """Return whose request it is: a key's, or an address's where no key is wanted.

        Raises:
            UnauthorizedError: a key is wanted, and none of the accepted ones is there.
        """
        client = self._keys.check(Headers(scope=scope).get("authorization"))
        address = scope.get("client")
        return client if self._keys.are_wanted or not address else str(address[0])


class _Exchange:
    """The id of one request, whether its response has started, and whether its client has left."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, writes_id: bool) -> None:
        given = Headers(scope=scope).get(REQUEST_ID_HEADER)
        self._writes_id = writes_id
        self.request_id = clean_request_id(given or "") or uuid.uuid4().hex
        self.has_started = False
        self.has_left = False
        self._receive = receive
        self._send = send
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        """Forward a message, with the id on the response's first one."""
        if message["type"] == "http.response.start":
            self.has_started = True
            if self._writes_id:
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = self.request_id
        try:
            await self._send(message)
        except Exception:
            self.has_left = True  # nobody takes the response any more
            raise

    async def receive(self) -> Message:
        """Receive a message. Serve raises errors of many kinds when its proxy has closed the connection."""
        try:
            message = await self._receive()
        except Exception:  # noqa: BLE001 - the request's body is lost, whatever it was
            message = {"type": "http.disconnect"}
        if message["type"] == "http.disconnect":
            self.has_left = True
        return message


def clean_request_id(given: str) -> str:
    """Return the characters of a client's id that may stand in a log line."""
    return "".join(letter for letter in given[:_MAX_REQUEST_ID_LENGTH] if letter.isalnum() or letter in "-_.")
