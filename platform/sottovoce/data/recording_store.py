"""Store the recordings in rows of Parquet files as members of tar files, so that each can be read by itself.

Of a Parquet file only whole row groups can be read, some 15 MB as the Hub writes them. Training reads a corpus in
another order in each epoch, and would read a row group for each utterance: a hundred times the corpus. Storing reads it
once, and writes it once.
"""

import io
import logging
import os
import tarfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayTaskError
from rich.console import Console
from rich.progress import track

from sottovoce.audio.parquet_rows import read_rows
from sottovoce.audio.reference import parse_reference
from sottovoce.cluster import join_cluster
from sottovoce.errors import SottovoceError
from sottovoce.schema import Utterance

logger = logging.getLogger(__name__)

Spans: TypeAlias = dict[int, tuple[int, int]]
"""First byte of the recording in each row, and the byte after its last."""


def store_recordings(utterances: Sequence[Utterance], folder: Path) -> list[Utterance]:
    """Copy the recordings that are rows of Parquet files into a folder, on the Ray cluster, a task for each file.

    Args:
        utterances: any; those whose recordings are files, or parts of other files, are left alone.
        folder: receives a tar file for each Parquet file; all nodes must be able to write to it.

    Returns:
        The utterances in the given order, with references to the bytes of the members.

    Raises:
        AudioDecodeError: a row that is no longer there, or holds no recording.
        StorageError: storage does not answer.
    """
    rows = group_rows(utterances)
    if not rows:
        return list(utterances)
    join_cluster()
    started = time.monotonic()
    targets = name_targets(rows, folder)
    logger.info("storing the recordings of %d rows of %d files in %s", sum(map(len, rows.values())), len(rows), folder)
    store: Any = ray.remote(num_cpus=1, max_retries=-1)(store_rows)  # a task whose node dies runs again
    tasks = {store.remote(one, sorted(rows[one]), targets[one]): one for one in rows}
    console = Console(stderr=True)
    spans: dict[str, Spans] = {}
    for task in track(
        _as_completed(list(tasks)),
        total=len(tasks),
        description="storing recordings",
        console=console,
        disable=not console.is_terminal,
    ):
        spans[tasks[task]] = _get(task)
    logger.info("stored them in %.1f s", time.monotonic() - started)
    return [refer(one, spans, targets) for one in utterances]


def _as_completed(tasks: list[ray.ObjectRef[Spans]]) -> Iterator[ray.ObjectRef[Spans]]:
    while tasks:
        done, tasks = ray.wait(tasks)
        yield from done


def _get(task: ray.ObjectRef[Spans]) -> Spans:
    """Return a task's result, or raise its error without what Ray wraps around it."""
    try:
        return ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, SottovoceError | OSError):
            raise error.cause from None
        raise


def group_rows(utterances: Sequence[Utterance]) -> dict[str, set[int]]:
    """Return the rows that utterances refer to, by the location of their file."""
    rows: defaultdict[str, set[int]] = defaultdict(set)
    for one in utterances:
        reference = parse_reference(one.audio)
        if reference.row is not None:
            rows[reference.location].add(reference.row)
    return dict(rows)


def name_targets(locations: Collection[str], folder: Path) -> dict[str, Path]:
    """Return the tar file of each Parquet file: numbered, since files of two folders may share a name."""
    stems = {one: Path(one).name.removesuffix(".parquet") for one in locations}
    return {one: folder.resolve() / f"{number:05d}-{stem}.tar" for number, (one, stem) in enumerate(stems.items())}


def refer(utterance: Utterance, spans: Mapping[str, Spans], targets: Mapping[str, Path]) -> Utterance:
    """Return an utterance that refers to its stored recording; another one is returned as it is."""
    reference = parse_reference(utterance.audio)
    if reference.row is None:
        return utterance
    start, stop = spans[reference.location][reference.row]
    return utterance.model_copy(update={"audio": f"{targets[reference.location]}#bytes={start}-{stop}"})


def store_rows(location: str, rows: Collection[int], target: Path) -> Spans:
    """Copy the recordings in some rows of one Parquet file into a tar file, which is put in place once it is whole.

    Raises:
        FileNotFoundError, AudioDecodeError, StorageError: see ``read_rows``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    spans: Spans = {}
    try:
        with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as archive:
            for row, data in read_rows(location, rows):
                member = tarfile.TarInfo(f"{row:09d}")
                member.size = len(data)
                start = archive.offset + tarfile.BLOCKSIZE  # after the member's header
                archive.addfile(member, io.BytesIO(data))
                spans[row] = (start, start + len(data))
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return spans
