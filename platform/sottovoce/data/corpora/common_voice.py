"""Read Common Voice releases: ``clips/`` and beside it one table per split.

A folder may hold several languages, each with its own ``clips/`` and tables. ``other.tsv``, ``invalidated.tsv`` and
``reported.tsv`` list clips that listeners have not confirmed; they are not read.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Final

from sottovoce.data.corpora.fields import fault_row, parse_record
from sottovoce.data.corpora.files import CorpusFiles
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.data.corpora.tables import read_tsv
from sottovoce.errors import ManifestError
from sottovoce.schema import Split

SPLIT_TABLES: Final[Mapping[str, Split]] = {"train.tsv": "train", "dev.tsv": "validation", "test.tsv": "test"}
VALIDATED_TABLE = "validated.tsv"  # all confirmed clips, including those of the three splits
_COLUMNS = ("path", "sentence")


def read_common_voice(files: CorpusFiles) -> Iterator[CorpusRow]:
    """Read the tables of the splits, or ``validated.tsv`` for a language that has none of them.

    Raises:
        ManifestError: no table, or one without the columns path and sentence.
    """
    tables = list(files.names) if files.is_single else _choose_tables(files)
    if not tables:
        raise ManifestError(files.location, f"holds neither {', '.join(SPLIT_TABLES)} nor {VALIDATED_TABLE}")
    return (row for table in tables for row in _read_table(files, table))


def _choose_tables(files: CorpusFiles) -> list[str]:
    tables = [name for name in files.names if posixpath.basename(name) in SPLIT_TABLES]
    split_folders = {posixpath.dirname(name) for name in tables}
    validated = (name for name in files.names if posixpath.basename(name) == VALIDATED_TABLE)
    return sorted([*tables, *(name for name in validated if posixpath.dirname(name) not in split_folders)])


def _read_table(files: CorpusFiles, name: str) -> Iterator[CorpusRow]:
    clips = posixpath.join(posixpath.dirname(name), "clips")
    split = SPLIT_TABLES.get(posixpath.basename(name))
    for number, record in read_tsv(files.read(name), source=files.shown(name), all_of=_COLUMNS):
        location = f"{name}:{number}"
        if isinstance(record, ValueError):
            yield fault_row(record, location=location, row_id=location)
        else:
            fields = {"audio": record["path"], **record}
            yield parse_record(fields, location=location, folder=clips, files=files, split=split)
