"""Admission of requests: how many may upload, how many are processed, and how many one API key may have open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from serve.errors import OverloadedError, RateLimitError


class Admission:
    """The request counters of one gateway replica."""

    def __init__(self, *, max_uploads: int, max_working: int, max_per_client: int | None) -> None:
        """Start with no open requests.

        Args:
            max_uploads: requests held open, slow uploads included.
            max_working: requests decoded and transcribed at a time.
            max_per_client: requests of one client held open; None for no limit.
        """
        self._max_uploads, self._max_working, self._max_per_client = max_uploads, max_working, max_per_client
        self._num_open = 0
        self._num_working = 0
        self._num_of_client: Counter[str] = Counter()

    @contextmanager
    def open(self, client: str) -> Iterator[None]:
        """Count a request from its first byte. It is refused before the upload when processing is at its limit.

        Args:
            client: its client; see ``ApiKeys.check``.

        Raises:
            RateLimitError: this client has too many open requests.
            OverloadedError: the replica is at its limit.
        """
        if self._max_per_client is not None and self._num_of_client[client] >= self._max_per_client:
            raise RateLimitError(self._max_per_client)
        if self._num_open >= self._max_uploads:
            raise OverloadedError(self._max_uploads)
        self._check_room_for_work()
        self._num_open += 1
        self._num_of_client[client] += 1
        try:
            yield
        finally:
            self._num_open -= 1
            self._num_of_client[client] -= 1
            self._num_of_client += Counter()  # drops clients at zero, so that the counter never grows

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a request while its audio is in memory; slow uploads do not count.

        Raises:
            OverloadedError: the replica is at its limit.
        """
        self._check_room_for_work()
        self._num_working += 1
        try:
            yield
        finally:
            self._num_working -= 1

    def _check_room_for_work(self) -> None:
        if self._num_working >= self._max_working:
            raise OverloadedError(self._max_working)
