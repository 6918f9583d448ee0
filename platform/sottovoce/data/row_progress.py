"""Show how many rows of a corpus are done: a bar on a terminal, a line every few seconds in a log."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 5.0


class RowProgress:
    """Counts rows as they come; built by ``shown_rows``."""

    def __init__(self, progress: Progress, num_rows: int, *, interval_s: float) -> None:
        self._progress = progress
        self._task = progress.add_task("checking rows", total=num_rows)
        self._num_rows = num_rows
        self._interval_s = interval_s
        self._num_done = 0
        self._started = self._shown = 0.0

    def advance(self) -> None:
        """Count one more row; the pace is measured from the first on, since workers take seconds to start."""
        self._num_done += 1
        self._progress.advance(self._task)
        if self._num_done == 1:
            self._started = self._shown = time.monotonic()
        elif self._progress.disable and time.monotonic() - self._shown >= self._interval_s:
            self._log_line()

    def _log_line(self) -> None:
        self._shown = time.monotonic()
        rows_per_s = self._num_done / (self._shown - self._started)
        left_s = (self._num_rows - self._num_done) / rows_per_s
        logger.info(
            "checked %d of %d rows, %.0f rows/s, %.0f s left", self._num_done, self._num_rows, rows_per_s, left_s
        )


@contextmanager
def shown_rows(
    num_rows: int, *, console: Console | None = None, interval_s: float = _LINE_INTERVAL_S
) -> Iterator[RowProgress]:
    """Show progress on stderr until the block is left.

    Args:
        num_rows: rows in all.
        console: where to draw; stderr when None.
        interval_s: seconds between two lines where stderr is no terminal.
    """
    console = console or Console(stderr=True)
    left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left)
    if not console.is_terminal:
        logger.info("checking %d rows", num_rows)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield RowProgress(progress, num_rows, interval_s=interval_s)
