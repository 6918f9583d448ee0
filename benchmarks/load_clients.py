"""Clients that load a service: each waits for its answer (closed loop), or requests come on their own time (open)."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from benchmarks.load_recordings import Upload

TRANSPORT_ERROR = 0
_REFUSALS = (429, 503)
_TIMEOUT_MARGIN_S = 30.0  # a client that waits longer than the deadline sees how late an answer comes


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one request."""

    group: str
    audio_s: float
    started_s: float
    """Since the load began."""
    seconds: float
    """To the last byte of the answer."""
    status: int
    """HTTP status; 0 for an error of the connection."""
    reason: str = "ok"
    """Code of the error, or the class of a connection's error."""
    retry_after_s: float | None = None
    """Seconds that a refusal asks to wait."""
    is_same: bool = True
    """Whether the text is that of this recording's first answer."""

    @property
    def is_answered(self) -> bool:
        """Whether it has a transcript."""
        return self.status == httpx.codes.OK

    @property
    def is_refused(self) -> bool:
        """Whether it was refused as overload should be: with a status and a time to come back."""
        return self.status in _REFUSALS and self.retry_after_s is not None

    @property
    def is_lost(self) -> bool:
        """Whether it is neither answered nor refused properly."""
        return not (self.is_answered or self.is_refused)


class Load:
    """The load on one service, and what became of its requests."""

    def __init__(
        self, build_client: Callable[[], httpx.AsyncClient], uploads: Iterator[Upload], *, model: str, duration_s: float
    ) -> None:
        """Start the clock.

        Args:
            build_client: returns a client with the service's base URL. Each of the load's clients is one of its own:
                httpx looks through all connections of a client for each request, milliseconds where there are hundreds.
            uploads: what is sent, in order.
            model: the model id of each request.
            duration_s: seconds in which requests start; all are waited for.
        """
        self.outcomes: list[Outcome] = []
        self.duration_s = duration_s
        self._build_client = build_client
        self._uploads = uploads
        self._model = model
        self._texts: dict[str, str] = {}
        self._began = time.monotonic()

    def elapsed_s(self) -> float:
        """Return the seconds since the load began."""
        return time.monotonic() - self._began

    async def run_closed(self, num_clients: int) -> None:
        """Let clients send one request after the other. A refused client waits as long as it was asked to."""

        async def send_all() -> None:
            async with self._build_client() as client:
                while self.elapsed_s() < self.duration_s:
                    outcome = await self.send_one(client)
                    await asyncio.sleep(outcome.retry_after_s or 0.0)

        await asyncio.gather(*(send_all() for _ in range(num_clients)))

    async def run_open(self, requests_per_s: float, *, seed: int) -> None:
        """Send requests at random times (Poisson), whatever became of those before. None is sent again."""

        async def send() -> None:
            async with self._build_client() as client:
                await self.send_one(client)

        gaps = random.Random(seed)
        sent: list[asyncio.Task[None]] = []
        while True:
            await asyncio.sleep(gaps.expovariate(requests_per_s))
            if self.elapsed_s() >= self.duration_s:
                break
            sent.append(asyncio.create_task(send()))
        await asyncio.gather(*sent)

    async def send_one(self, client: httpx.AsyncClient) -> Outcome:
        """Send the next upload and wait for what becomes of it."""
        upload, started_s = next(self._uploads), self.elapsed_s()
        status, reason, is_same = TRANSPORT_ERROR, "ok", True
        retry_after_s: float | None = None
        try:
            response = await client.post(
                "/audio/transcriptions", files={"file": (upload.name, upload.data)}, data={"model": self._model}
            )
        except httpx.HTTPError as error:
            reason = type(error).__name__
        else:
            status = response.status_code
            if status == httpx.codes.OK:
                text = str(response.json()["text"])
                is_same = self._texts.setdefault(upload.name, text) == text
            else:
                reason = _error_code(response)
                asked = response.headers.get("retry-after")
                retry_after_s = None if asked is None else float(asked)
        outcome = Outcome(
            group=upload.group,
            audio_s=upload.audio_s,
            started_s=started_s,
            seconds=self.elapsed_s() - started_s,
            status=status,
            reason=reason,
            retry_after_s=retry_after_s,
            is_same=is_same,
        )
        self.outcomes.append(outcome)
        return outcome


def build_client(base_url: str, *, deadline_s: float) -> httpx.AsyncClient:
    """Return a client that waits longer than the service's deadline, and has no certificates to read."""
    return httpx.AsyncClient(base_url=base_url, verify=False, timeout=deadline_s + _TIMEOUT_MARGIN_S)


def _error_code(response: httpx.Response) -> str:
    """Return the error's code; the status where the body is not in OpenAI's shape."""
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return f"status {response.status_code} without an error"
