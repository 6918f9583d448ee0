"""The decoded audio that one gateway holds: admitted by bytes, and released with its request."""

import threading

import numpy as np

from serve.errors import DecodedAudioError
from serve.settings import LONG_SHARE
from sottovoce.schema import SAMPLING_RATE, Pcm

BYTES_PER_S = 2 * SAMPLING_RATE
"""Of 16-bit PCM."""


class DecodedBudget:
    """The bytes of decoded audio that may be held; threads share it."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty.

        Args:
            max_bytes: for all recordings; see ``Limits.max_decoded_bytes``.
        """
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self.num_bytes = 0
        """Bytes reserved now."""
        self._long_bytes = 0

    def reserve(self, num_bytes: int, *, is_long: bool) -> None:
        """Reserve bytes.

        Raises:
            DecodedAudioError: they are not free, or not for a long recording.
        """
        with self._lock:
            is_full = self.num_bytes + num_bytes > self._max_bytes
            if is_full or (is_long and self._long_bytes + num_bytes > LONG_SHARE * self._max_bytes):
                raise DecodedAudioError(self._max_bytes)
            self.num_bytes += num_bytes
            self._long_bytes += num_bytes if is_long else 0

    def release(self, num_bytes: int, *, is_long: bool) -> None:
        """Return reserved bytes."""
        with self._lock:
            self.num_bytes -= num_bytes
            self._long_bytes -= num_bytes if is_long else 0


class DecodedAudio:
    """The samples of one recording while they arrive, and their part of the budget."""

    def __init__(self, budget: DecodedBudget, *, is_long: bool, expected_s: float = 0.0) -> None:
        """Reserve what is expected.

        Args:
            budget: of the gateway.
            is_long: whether it counts as a long recording.
            expected_s: seconds of audio that are expected; more are reserved as they arrive.

        Raises:
            DecodedAudioError: there is no room.
        """
        self._budget, self._is_long = budget, is_long
        self._lock = threading.Lock()
        self._data = bytearray()
        self._is_released = False
        self._num_reserved = round(expected_s * BYTES_PER_S)
        budget.reserve(self._num_reserved, is_long=is_long)

    def append(self, block: bytes) -> None:
        """Add samples; they are dropped if the request has ended meanwhile.

        Raises:
            DecodedAudioError: there is no room.
        """
        with self._lock:
            if self._is_released:
                return
            num_more = len(self._data) + len(block) - self._num_reserved
            if num_more > 0:
                self._budget.reserve(num_more, is_long=self._is_long)
                self._num_reserved += num_more
            self._data += block

    def clear(self) -> None:
        """Drop all samples so far; their reservation stays."""
        with self._lock:
            self._data = bytearray()

    def samples(self) -> Pcm:
        """Return (S,) int16, and the reservation beyond them to the budget. Nothing may be added afterwards."""
        with self._lock:
            num_spare = self._num_reserved - len(self._data)
            self._budget.release(num_spare, is_long=self._is_long)
            self._num_reserved -= num_spare
            return np.frombuffer(self._data, np.int16)

    def release(self) -> None:
        """Return everything to the budget."""
        with self._lock:
            self._is_released = True
            self._data = bytearray()
            self._budget.release(self._num_reserved, is_long=self._is_long)
            self._num_reserved = 0
