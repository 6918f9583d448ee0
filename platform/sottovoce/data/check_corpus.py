"""Check all rows of a corpus on the Ray cluster, and account for each of them.

A task that dies with its worker runs again, as often as it takes: Ray Data gives its tasks unlimited retries. A row's
outcome depends on the row alone and is put back at the row's place, so neither the number of workers nor their deaths
show in the result.
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
from sottovoce.data.corpora.read import CorpusFormat, detect_format, read_corpus
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import RowsLostError, StorageError

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 5.0


class RowProgress:
    """Counts rows as they come; built by ``shown_rows``."""

    def __init__(self, progress: Progress, num_rows: int, *, interval_s: float) -> None:
        self._progress = progress
        self._task = progress.add_task("checking rows", total=num_rows)
        self._num_rows = num_rows
        self._interval_s = interval_s
        self.num_done = 0
        """Rows that have come."""
        self._started = self._shown = 0.0

    def advance(self) -> None:
        """Count one more row; the pace is measured from the first on, since workers take seconds to start."""
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
_ROWS_PER_TASK = 64  # decoding them takes about a second: long against a task's overhead, short against a retry
_NUM_NAMED = 3  # ids in the message of an error


def check_corpus(location: str | Path, layout: CorpusFormat, rules: CheckRules) -> list[Checked]:
    """Check every row of a corpus; the outcomes stand in the order of the corpus.

    Of rows with the same id the first is checked and the others are rejected.

    Args:
        location: path or URI of the corpus.
        layout: as ``read_corpus`` takes it, and ``parquet``.
        rules: what a row must be.

    Raises:
        ManifestError: the corpus cannot be read.
        RowsLostError: a row without an outcome, or with another row's.
        StorageError: storage of a recording does not answer, so that nobody knows whether the row is good.
    """
    join_cluster()
    files = list_files(location)
    found = detect_format(files, layout)
    return check_parquet(files, rules) if found == "parquet" else check_listed(read_corpus(files, found), rules)


def _started_soon(progress: RowProgress) -> AbstractContextManager[None]:
    """Warn within 10 s if the cluster has no room for a task that checks rows."""
    return explained_wait("a task that checks rows", {"CPU": 1.0}, has_started=lambda: progress.num_done > 0)


def check_listed(rows: Sequence[CorpusRow], rules: CheckRules) -> list[Checked]:
    """Check rows whose audio lies elsewhere; see ``check_corpus``.

    Raises:
        RowsLostError, StorageError: as ``check_corpus``.
    """
    first_of_id: dict[str, int] = {}
    for place, row in enumerate(rows):
        first_of_id.setdefault(row.id, place)
    places = list(first_of_id.values())
    outcomes = list(_check_places(rows, places, rules))
    require_same_rows("check", (rows[place].id for place in places), (each.outcome.id for _, each in outcomes))
    checked = dict(outcomes)
    duplicates = (reject_duplicate(row.id, row.audio) for place, row in enumerate(rows) if place not in checked)
    return [checked.get(place) or next(duplicates) for place in range(len(rows))]


def _check_places(rows: Sequence[CorpusRow], places: Sequence[int], rules: CheckRules) -> Iterable[tuple[int, Checked]]:
    """Give place and outcome, in whatever order they come."""
    if not places:
        return
    items = [{"place": place, "record": _ROW.dump_json(rows[place]).decode()} for place in places]
    dataset = ray.data.from_items(items, override_num_blocks=-(-len(items) // _ROWS_PER_TASK)).map(build_check(rules))
    dataset.context.enable_progress_bars = False  # ours counts rows; Ray's count blocks of operators
    with shown_rows(len(items)) as progress, _started_soon(progress):
        for item in dataset.iter_rows():
            if item["fault"]:
                raise StorageError(*json.loads(item["fault"]))
            yield item["place"], _CHECKED.validate_json(item["record"])
            progress.advance()


def check_parquet(files: CorpusFiles, rules: CheckRules) -> list[Checked]:
    """Check rows that bring their audio along; see ``check_corpus``.

    A row does not know its number, so order and counting give it, and the footers tell how many there must be.
    """
    shards = parquet_files(files)
    dataset = stream_parquet(files, shards).map(build_parquet_check(rules))
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
    """Give each row of ``stream_parquet`` with its shard and its number there, which it does not know itself.

    Raises:
        RowsLostError: a shard gave fewer or more rows than its footer says.
    """
    num_rows = sum(shard.num_rows for shard in shards)
    for num_read, (item, place) in enumerate(zip_longest(items, list_rows(shards))):
        if item is None or place is None or not item["path"].endswith(place[0].name):
            where = "after the last shard" if place is None else f"at row {place[1]} of {place[0].name}"
            raise RowsLostError("read", num_rows, num_read, f"the footers tell otherwise {where}")
        yield item, place


def build_parquet_check(rules: CheckRules) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Give the function that Ray Data maps over the rows of ``stream_parquet``; it raises on no bad row.

    It gives the shard's ``path``, and as ``record`` the JSON of a ``Checked`` that has no id where the row has none.
    """

    def check(values: dict[str, Any]) -> dict[str, Any]:
        row, data = parse_parquet_row(values)
        checked = check_row(dataclasses.replace(row, audio=values["path"]), rules, data=data)
        return {"path": values["path"], "record": _CHECKED.dump_json(checked).decode()}

    return check


def build_check(rules: CheckRules) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Give the function that Ray Data maps over ``place`` and ``record``; it raises on no bad row.

    The record is JSON: of a ``CorpusRow`` before, of a ``Checked`` after. ``fault`` is empty, or the JSON of a
    ``StorageError``'s fields: an error that a task raises reaches the driver as Ray's, its class and cause left out.
    """

    def check(item: dict[str, Any]) -> dict[str, Any]:
        try:
            checked = check_row(_ROW.validate_json(item["record"]), rules)
        except StorageError as error:
            return {"place": item["place"], "record": "", "fault": json.dumps(error.args)}
        return {"place": item["place"], "record": _CHECKED.dump_json(checked).decode(), "fault": ""}

    return check


def require_same_rows(stage: str, ids_in: Iterable[str], ids_out: Iterable[str]) -> None:
    """Hold that a stage's rows out are its rows in, whatever their order.

    Raises:
        RowsLostError: ids that are missing, or that were not there before, or came more often.
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
