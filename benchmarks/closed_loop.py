"""Clients that send one recording after the other, and what came back."""

import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

_TIMEOUT_S = 120.0
_AFTER_ERROR_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One request."""

    started_s: float
    """Monotonic time, as ``ended_s``."""
    ended_s: float
    status: int | None
    """None when the connection failed."""
    text: str
    """The transcript, or what went wrong."""
    recording: int

    @property
    def latency_s(self) -> float:
        """Seconds from the request to its answer."""
        return self.ended_s - self.started_s


def ask(client: httpx.Client, base_url: str, recordings: Sequence[bytes], recording: int) -> Outcome:
    """Send one recording and return what came back, whatever that is."""
    started_s = time.monotonic()
    status: int | None = None
    try:
        answer = client.post(
            f"{base_url}/audio/transcriptions",
            files={"file": ("speech.wav", recordings[recording])},
            data={"model": "whisper-1", "language": "en", "response_format": "text"},
        )
        status, text = answer.status_code, answer.text
    except httpx.HTTPError as error:
        text = repr(error)
    return Outcome(started_s=started_s, ended_s=time.monotonic(), status=status, text=text, recording=recording)


@dataclass
class ClosedLoop:
    """Clients and their outcomes so far."""

    base_url: str
    recordings: Sequence[bytes]
    outcomes: list[Outcome] = field(default_factory=list)

    def probe(self) -> bool:
        """Send the first recording over a new connection; return whether it was answered."""
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            return ask(client, self.base_url, self.recordings, 0).status == httpx.codes.OK

    @contextmanager
    def running(self, num_clients: int) -> Iterator[None]:
        """Let clients send until the block is left, and then wait for their last answers."""
        stopped = threading.Event()
        clients = [threading.Thread(target=self._send, args=(number, stopped)) for number in range(num_clients)]
        for thread in clients:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            for thread in clients:
                thread.join()

    def _send(self, first: int, stopped: threading.Event) -> None:
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            for number in itertools.count(first):
                if stopped.is_set():
                    return
                outcome = ask(client, self.base_url, self.recordings, number % len(self.recordings))
                self.outcomes.append(outcome)
                if outcome.status != httpx.codes.OK:
                    time.sleep(_AFTER_ERROR_S)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
