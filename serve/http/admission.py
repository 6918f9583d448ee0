"""Who is let in: how many requests may upload, how many work, and how many one API key may have open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from serve.errors import OverloadedError, RateLimitError


class Admission:
    """The places of one gateway replica."""

    def __init__(self, *, max_uploads: int, max_working: int, max_per_client: int | None) -> None:
        """Begin with every place free.

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
        """Count a request from its first byte; where work is already at its limit, refuse before the upload.

        Args:
            client: whose it is; see ``ApiKeys.check``.

        Raises:
            RateLimitError: this client has as many open as it may.
            OverloadedError: no place for anybody.
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
            self._num_of_client += Counter()  # forgets those at zero, so that it never grows

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a request while its audio is in memory: slow uploads wait outside.

        Raises:
            OverloadedError: every place is taken.
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
