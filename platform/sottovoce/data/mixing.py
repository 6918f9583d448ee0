"""Combine several manifests into the speech of one run: old data against forgetting, several languages or tasks."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sottovoce.data.manifest import read_rejects, read_table
from sottovoce.data.utterance_table import SCHEMA, UtteranceTable
from sottovoce.errors import ManifestError
from sottovoce.schema import Reject, Split, Utterance

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Speech:
    """The utterances and rejects of a run's manifests."""

    manifests: tuple[Sequence[Utterance], ...]
    """The utterances of each manifest, of all splits; ids are unique. ``read_speech`` holds them as columns."""
    rejects: tuple[Reject, ...]
    """The rejected rows of all manifests."""

    def split(self, split: Split) -> UtteranceTable:
        """Return the utterances of one split in all manifests; possibly none."""
        return UtteranceTable.join([UtteranceTable.of(manifest) for manifest in self.manifests]).of_split(split)


def read_speech(manifests: Sequence[Path]) -> Speech:
    """Read manifests and the rejects beside them.

    If there are several, ids get the name of their corpus as a prefix. An utterance without a corpus belongs to one
    named after the folder of its manifest.

    Raises:
        ManifestError: see ``read_manifest``; or two manifests share an id.
    """
    read = [read_table(path) for path in manifests]
    rejects = tuple(reject for path in manifests for reject in read_rejects(path.with_name("rejects.jsonl")))
    if len(read) > 1:
        read = [_with_corpus(one, path) for one, path in zip(read, manifests, strict=True)]
        _check_ids(read, manifests)
        _warn_of_shared_names(read, manifests)
        read = _share_columns(read)
    return Speech(manifests=tuple(read), rejects=rejects)


def _with_corpus(table: UtteranceTable, path: Path) -> UtteranceTable:
    batch = table.batch
    corpora = pc.fill_null(batch.column("corpus").cast(pa.string()), path.resolve().parent.name)
    ids = batch.column("id")
    ids = pc.binary_join_element_wise(corpora.cast(ids.type), ids, pa.scalar("/", ids.type))
    for name, column in (("id", ids), ("corpus", corpora.dictionary_encode())):
        batch = batch.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return UtteranceTable(batch)


def _share_columns(tables: Sequence[UtteranceTable]) -> list[UtteranceTable]:
    """Join the columns of all manifests, so that the run holds and sends them once."""
    joined = UtteranceTable.join(tables)
    ends = list(itertools.accumulate(map(len, tables)))
    return [joined[end - len(table) : end] for end, table in zip(ends, tables, strict=True)]


def _check_ids(manifests: Sequence[UtteranceTable], paths: Sequence[Path]) -> None:
    chunks = pa.chunked_array([table.batch.column("id") for table in manifests])
    if pc.count_distinct(chunks).as_py() == len(chunks):
        return
    seen: dict[str, Path] = {}
    for table, path in zip(manifests, paths, strict=True):
        ids = table.batch.column("id").to_pylist()
        for one in ids:
            if one in seen:
                raise ManifestError(
                    path,
                    f"id {one!r} is also in {seen[one]}; prepare each corpus with a name of its own, or put the "
                    "manifests into folders with different names",
                )
        seen.update((one, path) for one in ids)


def _warn_of_shared_names(manifests: Sequence[UtteranceTable], paths: Sequence[Path]) -> None:
    """Warn about different corpora with the same name, which are scored as one; a folder named ``corpus`` is common."""
    first: dict[str, Path] = {}
    for table, path in zip(manifests, paths, strict=True):
        for name in sorted(table.batch.column("corpus").unique().to_pylist()):
            if first.setdefault(name, path) != path:
                logger.warning(
                    "%s and %s both call their corpus %r, so it is scored as one; prepare one of them with another "
                    "--prepare.name to tell them apart",
                    *(first[name], path, name),
                )
