"""Encoded audio as a seekable file for decoders written in C, whose callbacks must never raise."""

import io
from typing import Protocol, TypeAlias

from typing_extensions import Buffer

_CHECKED_BYTES = 1 << 20  # at a time


class ReadableFile(Protocol):
    """The methods that are used of an open file, Python's or fsspec's."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte."""
        ...

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer with the bytes that are left, and return how many there were."""
        ...


class EncodedBytes(io.BytesIO):
    """Bytes in memory."""

    fault: Exception | None = None
    """Never set: memory can be read."""
    descriptor: int | None = None

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.num_bytes = len(data)

    def find_fault(self) -> None:
        """Do nothing: memory can be read."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte; an impossible offset from a forged header leaves the position unchanged."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class EncodedSpan(io.RawIOBase):
    """A part of an open file; nothing outside it is ever read.

    Args:
        file: the open file, which stays open.
        start: first byte of the part.
        stop: the byte after the last one.
        faults: errors that reading the file may raise. They are kept in ``fault``; the decoder sees the file end there.
        descriptor: the file descriptor, if the part is the whole file.
    """

    def __init__(
        self,
        file: ReadableFile,
        *,
        start: int,
        stop: int,
        faults: tuple[type[Exception], ...] = (OSError,),
        descriptor: int | None = None,
    ) -> None:
        super().__init__()
        self.num_bytes = stop - start
        self.descriptor = descriptor
        self.fault: Exception | None = None
        self._file, self._start, self._faults = file, start, faults
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position, counted from the part's first byte."""
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a byte; an impossible offset from a forged header leaves the position unchanged."""
        target = offset + (0, self._position, self.num_bytes)[whence]
        if 0 <= target < 1 << 63:
            self._position = target
        return self._position

    def find_fault(self) -> None:
        """Read the whole part if a decoder read by ``descriptor``: a disk that failed then fails again, now visibly."""
        if self.descriptor is not None and self.fault is None:
            self.seek(0)
            while self.read(_CHECKED_BYTES):
                pass

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill the buffer up to the end of the part or the file; a single read of the file may return less."""
        view = memoryview(buffer).cast("B")
        num_wanted = min(len(view), self.num_bytes - self._position)
        num_read = 0
        try:
            if num_wanted > 0:
                self._file.seek(self._start + self._position)
            while num_read < num_wanted:
                num_more = self._file.readinto(view[num_read:num_wanted])
                if not num_more:
                    break
                num_read += num_more
        except self._faults as fault:
            self.fault = fault
        self._position += num_read
        return num_read


Encoded: TypeAlias = EncodedBytes | EncodedSpan
