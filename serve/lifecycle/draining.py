"""A gateway that stops answers the requests it has and refuses new ones."""

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import UnavailableError


class Drain:
    """How many requests a gateway has, and whether it takes new ones."""

    def __init__(self) -> None:
        self.num_open = 0
        """Requests whose answer has not been sent to its last byte."""
        self.has_begun = False

    def begin(self) -> int:
        """Refuse new requests from now on, and return how many are open."""
        self.has_begun = True
        return self.num_open


class DrainGate:
    """ASGI middleware that counts requests, and refuses them once the drain has begun."""

    def __init__(self, app: ASGIApp, *, drain: Drain, alive_path: str) -> None:
        """Wrap the routes.

        Args:
            app: the routes.
            drain: shared with the gateway.
            alive_path: the probe of the process, which is always answered.
        """
        self._app = app
        self._drain = drain
        self._alive_path = alive_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            UnavailableError: the gateway stops.
        """
        if scope["type"] != "http" or scope["path"] == self._alive_path:
            await self._app(scope, receive, send)
            return
        if self._drain.has_begun:
            raise UnavailableError("the service is stopping")
        self._drain.num_open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.num_open -= 1
