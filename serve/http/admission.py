"""Admission of requests: how many may upload, how many are processed, and how many one client may have open."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve.errors import AddressLimitError, OverloadedError, RateLimitError
from serve.http.upload import Arrival


class Admission:
    """The request counters of one gateway replica."""

    def __init__(
        self,
        *,
        max_uploads: int,
        max_working: int,
        max_per_client: int | None,
        has_keys: bool,
        arrive: Callable[[], Arrival],
    ) -> None:
        """Start with no open requests.

        Args:
            max_uploads: requests held open, slow uploads included.
            max_working: requests decoded and transcribed at a time.
            max_per_client: requests of one client held open; None for no limit.
            has_keys: whether clients are API keys; otherwise they are addresses.
            arrive: makes the arrival of a request's body.
        """
        self._max_uploads, self._max_working, self._max_per_client = max_uploads, max_working, max_per_client
        self._has_keys = has_keys
        self._arrive = arrive
        self._num_working = 0
        self._num_of_client: Counter[str] = Counter()
        self._arrivals: dict[Arrival, str] = {}

    @contextmanager
    def open(self, client: str) -> Iterator[Arrival]:
        """Count a request from its first byte. It is refused before the upload when processing is at its limit.

        Where there is no room left, the slowest upload makes room if it is slow: first of the same client, else of the
        one with the most requests. So nobody is locked out by bodies that trickle in.

        Args:
            client: its client; see ``Edge``.

        Yields:
            The arrival of its body.

        Raises:
            RateLimitError: this client has too many open requests.
            OverloadedError: the replica is at its limit, or this address has too many open requests.
        """
        slowest = self._find_upload_to_end(client)
        self._check_room_for_work()
        if slowest is not None:
            self._end(slowest)
        arrival = self._arrive()
        self._arrivals[arrival] = client
        self._num_of_client[client] += 1
        try:
            yield arrival
        finally:
            if self._arrivals.pop(arrival, None) is not None:
                self._forget(client)

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

    def _find_upload_to_end(self, client: str) -> Arrival | None:
        """Return the upload that must make room for a client's next request; None if there is room."""
        limit = self._max_per_client
        if limit is not None and self._num_of_client[client] >= limit:
            slowest = self._slowest(client)
            if slowest is None:
                raise RateLimitError(limit) if self._has_keys else AddressLimitError(limit)
            return slowest
        if len(self._arrivals) >= self._max_uploads:
            busiest = self._num_of_client.most_common(1)[0][0]
            slowest = self._slowest(busiest)
            if slowest is None:
                raise OverloadedError(self._max_uploads)
            return slowest
        return None

    def _slowest(self, client: str) -> Arrival | None:
        slow = [arrival for arrival, owner in self._arrivals.items() if owner == client and arrival.is_slow]
        return min(slow, key=lambda arrival: arrival.bytes_per_s, default=None)

    def _end(self, arrival: Arrival) -> None:
        arrival.end()
        self._forget(self._arrivals.pop(arrival))  # now, and not when its task has noticed

    def _forget(self, client: str) -> None:
        self._num_of_client[client] -= 1
        if not self._num_of_client[client]:
            del self._num_of_client[client]
