"""One request to an ASGI application, event by event: test clients give an answer only when it is over."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx


class Exchange:
    """A request under way; the application runs while the test waits for what it sends."""

    def __init__(self, application: Callable[..., Any], request: httpx.Request) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self._sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._has_gone = asyncio.Event()
        self._body: list[bytes] = [request.read()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "query_string": b"",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "state": {},
        }
        self._task = asyncio.create_task(application(scope, self._receive, self._send))

    async def next_event(self) -> dict[str, Any] | None:
        """Wait for the next server-sent event; None at the end."""
        chunk = await asyncio.wait_for(self._sent.get(), 30)
        if chunk is None:
            return None
        assert chunk.startswith(b"data: ")
        assert chunk.endswith(b"\n\n")
        assert chunk.count(b"\n") == 2
        parsed: dict[str, Any] = json.loads(chunk[6:])
        return parsed

    async def rest(self) -> list[dict[str, Any]]:
        """Wait for all further events."""
        events = []
        while (event := await self.next_event()) is not None:
            events.append(event)
        return events

    async def leave(self) -> None:
        """Hang up, and wait until the application has noticed."""
        self._has_gone.set()
        await asyncio.wait_for(self._task, 30)

    async def close(self) -> None:
        if not self._task.done():
            await self.leave()

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._has_gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message.get("body"):
            self._sent.put_nowait(message["body"])
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._sent.put_nowait(None)


@asynccontextmanager
async def exchange(application: Callable[..., Any], path: str, body: dict[str, Any]) -> AsyncIterator[Exchange]:
    """Send a form; ``body`` is what httpx takes: data and files."""
    begun = Exchange(application, httpx.Request("POST", f"http://gateway{path}", **body))
    try:
        yield begun
    finally:
        await begun.close()
