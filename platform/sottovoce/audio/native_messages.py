"""Capture what a decoder written in C prints on stderr, so that it is logged with the recording's name.

libmpg123 conceals damage in an mp3 and only prints a line about it, which does not name the file. libsndfile offers no
way to receive these lines.
"""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import IO

logger = logging.getLogger(__name__)

_STDERR = 2
_LIBMPG123 = re.compile(rb"(?:\[[^\]]*libmpg123[^\]]*\] *)?(note|warning|error): *(.*)", re.IGNORECASE)
_MAX_SHOWN = 3  # lines of one recording in the log; a badly damaged one prints several for each frame
_LOCK = Lock()
"""Held while stderr is captured: a line then belongs to the recording that is being decoded. Threads of a process
therefore decode mp3 one block at a time."""


class NativeMessages:
    """The lines that libmpg123 prints about one recording."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Keep the lines that libmpg123 prints inside the block; all others reach stderr when it ends.

        The block must be short and start no process: what other threads print waits for its end, and a child would
        inherit the captured stderr. In a process without stderr, or on a full disk, nothing is captured.
        """
        if sys.__stderr__ is None:  # descriptor 2 is another file then
            yield
            return
        with _LOCK, ExitStack() as stack:
            try:
                original = os.dup(_STDERR)
                stack.callback(os.close, original)
                file = stack.enter_context(_open_scratch())
            except OSError:
                yield
                return
            os.dup2(file.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(original, _STDERR)
                file.seek(0)
                self._sort(file.read())

    def log(self, source: str) -> None:
        """Log the lines in one warning that names the recording, if there are any."""
        if self._lines:
            more = len(self._lines) - _MAX_SHOWN
            rest = f"; and {more} more" if more > 0 else ""
            logger.warning("%s: libmpg123 says: %s%s", source, "; ".join(self._lines[:_MAX_SHOWN]), rest)

    def _sort(self, printed: bytes) -> None:
        """Keep libmpg123's lines, and print the others where they belong."""
        for line in printed.splitlines(keepends=True):
            found = _LIBMPG123.match(line)
            if found is not None:
                self._lines.append(f"{found[1].decode().lower()}: {found[2].decode('utf-8', 'replace').strip()}")
            elif line.strip():
                os.write(_STDERR, line)


def _open_scratch() -> IO[bytes]:
    """Open a file without a name: in memory on Linux, where that takes a tenth of the time."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()
