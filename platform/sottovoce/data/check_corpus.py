"""Check all rows of a corpus on the Ray cluster, and account for each of them.

A task that dies with its worker runs again, since Ray Data retries its tasks without limit. The outcome of a row
depends on the row alone and is stored at the row's index, so the number of workers and their deaths do not affect the
result.
"""

import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ray.data
from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sottovoce.cluster import explained_wait, join_cluster
from sottovoce.data.check import Checked, CheckRules, check_row, reject_duplicate
from sottovoce.data.corpora.files import CorpusFiles, list_files
from sottovoce.data.corpora.parquet import ParquetFile, list_rows, parquet_files, parse_parquet_row, stream_parquet
from sottovoce.data.corpora.read import LAYOUTS, CorpusFormat, detect_format, read_corpus
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import RowsLostError, StorageError

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 5.0


class RowProgress:
    """Counts the checked rows; built by ``shown_rows``."""

    def __init__(self, progress: Progress, num_rows: int, *, interval_s: float) -> None:
        self._progress = progress
        self._task = progress.add_task("checking rows", total=num_rows)
        self._num_rows = num_rows
        self._interval_s = interval_s
        self.num_done = 0
        """Rows that have come."""
        self._started = self._shown = 0.0

    def advance(self) -> None:
        """Count one more row; the rate is measured from the first row on, since workers take seconds to start."""
        self.num_done += 1
        self._progress.advance(self._task)
        if self.num_done == 1:
            self._started = self._shown = time.monotonic()
        elif self._progress.disable and time.monotonic() - self._shown >= self._interval_s:
            self._log_line()

    def _log_line(self) -> None:
        self._shown = time.monotonic()
        rows_per_s = self.num_done / (self._shown - self._started)
        left_s = (self._num_rows - self.num_done) / rows_per_s
        logger.info(
            "checked %d of %d rows, %.0f rows/s, %.0f s left", self.num_done, self._num_rows, rows_per_s, left_s
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


_ROW = TypeAdapter(CorpusRow)
_CHECKED = TypeAdapter(Checked)
_ROWS_PER_TASK = 64  # decoding them takes a second: long compared to a task's overhead, and short enough to retry
_NUM_NAMED = 3  # ids in the message of an error


def check_corpus(
    location: str | Path, layout: CorpusFormat, rules: CheckRules, *, keep: Sequence[str] = ()
) -> list[Checked]:
    """Check every row of a corpus; the outcomes are in the order of the corpus.

    Of several rows with the same id, the first is checked and the others are rejected.

    Args:
        location: path or URI of the corpus.
        layout: of the corpus; ``auto`` to detect it.
        rules: limits for rows.
        keep: names of further columns, which utterances get.

    Raises:
        ManifestError: the corpus cannot be read, or has no such column; before any recording is decoded.
        RowsLostError: a row has no outcome, or that of another row.
        StorageError: the storage of a recording does not answer, so that it is unknown whether the row is good.
    """
    join_cluster()
    files = list_files(location)
    found = detect_format(files, layout)
    is_streamed = LAYOUTS[found].read is None
    if is_streamed:
        return check_parquet(files, rules, keep=keep)
    return check_listed(read_corpus(files, found, keep=keep), rules)


def _started_soon(progress: RowProgress) -> AbstractContextManager[None]:
    """Warn within 10 s if the cluster has no room for a task that checks rows."""
    return explained_wait("a task that checks rows", {"CPU": 1.0}, has_started=lambda: progress.num_done > 0)


def check_listed(rows: Sequence[CorpusRow], rules: CheckRules) -> list[Checked]:
    """Check rows that refer to their audio; see ``check_corpus``.

    Raises:
        RowsLostError, StorageError: as ``check_corpus``.
    """
    first_of_id: dict[str, int] = {}
    for index, row in enumerate(rows):
        first_of_id.setdefault(row.id, index)
    indices = list(first_of_id.values())
    outcomes = list(_check_indices(rows, indices, rules))
    require_same_rows("check", (rows[index].id for index in indices), (each.outcome.id for _, each in outcomes))
    checked = dict(outcomes)
    duplicates = (reject_duplicate(row.id, row.audio) for index, row in enumerate(rows) if index not in checked)
    return [checked.get(index) or next(duplicates) for index in range(len(rows))]


def _check_indices(
    rows: Sequence[CorpusRow], indices: Sequence[int], rules: CheckRules
) -> Iterable[tuple[int, Checked]]:
    """Yield index and outcome, in the order of completion."""
    if not indices:
        return
    items = [{"index": index, "record": _ROW.dump_json(rows[index]).decode()} for index in indices]
    dataset = ray.data.from_items(items, override_num_blocks=-(-len(items) // _ROWS_PER_TASK)).map(build_check(rules))
    dataset.context.enable_progress_bars = False  # ours counts rows; Ray's count blocks of operators
    with shown_rows(len(items)) as progress, _started_soon(progress):
        for item in dataset.iter_rows():
            if item["fault"]:
                raise StorageError(*json.loads(item["fault"]))
            yield item["index"], _CHECKED.validate_json(item["record"])
            progress.advance()


def check_parquet(files: CorpusFiles, rules: CheckRules, *, keep: Sequence[str] = ()) -> list[Checked]:
    """Check rows that contain their audio; see ``check_corpus``.

    A row does not contain its number, so it follows from the order; the footers say how many rows there must be.
    """
    shards = parquet_files(files, keep=keep)
    dataset = stream_parquet(files, shards).map(build_parquet_check(rules, keep=keep))
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    outcomes: list[Checked] = []
    seen: set[str] = set()
    with shown_rows(sum(shard.num_rows for shard in shards)) as progress, _started_soon(progress):
        for item, (shard, number) in number_rows(dataset.iter_rows(), shards):
            checked = _CHECKED.validate_json(item["record"])
            row_id, audio = checked.outcome.id or shard.row_id(number), shard.row_reference(number)
            is_new = row_id not in seen
            outcomes.append(
                checked.located(row_id, audio, split=shard.split) if is_new else reject_duplicate(row_id, audio)
            )
            seen.add(row_id)
            progress.advance()
    return outcomes


def number_rows(
    items: Iterable[dict[str, Any]], shards: Sequence[ParquetFile]
) -> Iterator[tuple[dict[str, Any], tuple[ParquetFile, int]]]:
    """Yield each row of ``stream_parquet`` with its shard and its number in it.

    Raises:
        RowsLostError: a shard has fewer or more rows than its footer says.
    """
    num_rows = sum(shard.num_rows for shard in shards)
    for num_read, (item, position) in enumerate(zip_longest(items, list_rows(shards))):
        if item is None or position is None or not item["path"].endswith(position[0].name):
            where = "after the last shard" if position is None else f"at row {position[1]} of {position[0].name}"
            raise RowsLostError("read", num_rows, num_read, f"the footers say otherwise {where}")
        yield item, position


def build_parquet_check(rules: CheckRules, *, keep: Sequence[str] = ()) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the function that Ray Data maps over the rows of ``stream_parquet``; bad rows raise no error.

    Its result has the shard's ``path``, and as ``record`` the JSON of a ``Checked``, without id if the row has none.
    """

    def check(values: dict[str, Any]) -> dict[str, Any]:
        row, data = parse_parquet_row(values, keep=keep)
        checked = check_row(dataclasses.replace(row, audio=values["path"]), rules, data=data)
        return {"path": values["path"], "record": _CHECKED.dump_json(checked).decode()}

    return check


def build_check(rules: CheckRules) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the function that Ray Data maps over ``index`` and ``record``; bad rows raise no error.

    The record is the JSON of a ``CorpusRow`` before and of a ``Checked`` after. ``fault`` is empty, or the JSON of a
    ``StorageError``'s fields, since an error raised in a task reaches the driver as Ray's, without class and cause.
    """

    def check(item: dict[str, Any]) -> dict[str, Any]:
        try:
            checked = check_row(_ROW.validate_json(item["record"]), rules)
        except StorageError as error:
            return {"index": item["index"], "record": "", "fault": json.dumps(error.args)}
        return {"index": item["index"], "record": _CHECKED.dump_json(checked).decode(), "fault": ""}

    return check


def require_same_rows(stage: str, ids_in: Iterable[str], ids_out: Iterable[str]) -> None:
    """Check that a stage returned the rows it received, in any order.

    Raises:
        RowsLostError: ids are missing, were added, or occur more often.
    """
    counts_in, counts_out = Counter(ids_in), Counter(ids_out)
    if counts_in == counts_out:
        return
    lost, added = sorted((counts_in - counts_out).elements()), sorted((counts_out - counts_in).elements())
    difference = f"lost {_name(lost)}; added {_name(added)}"
    raise RowsLostError(stage, counts_in.total(), counts_out.total(), difference)


def _name(ids: Sequence[str]) -> str:
    rest = f" and {len(ids) - _NUM_NAMED} more" if len(ids) > _NUM_NAMED else ""
    return (", ".join(map(repr, ids[:_NUM_NAMED])) or "none") + rest
