"""The speech of a score: a prepared manifest, or any corpus as it is, streamed without a copy on this machine."""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from sottovoce.data.corpora import fields
from sottovoce.data.corpora.columns import FIELDS, keep_columns
from sottovoce.data.corpora.files import CorpusFiles, list_files
from sottovoce.data.corpora.read import LAYOUTS, detect_format, read_corpus
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.data.manifest import read_manifest
from sottovoce.errors import ConfigError, ManifestError
from sottovoce.recognize.scoring import select_split
from sottovoce.schema import MAX_DURATION_S, Split, Utterance
from sottovoce.text.languages import LANGUAGES, find_language, language_spellings

if TYPE_CHECKING:  # it imports ray, which a manifest does not need
    from sottovoce.data.corpora.parquet import ParquetFile

logger = logging.getLogger(__name__)

Columns: TypeAlias = Mapping[str, Mapping[str, str]]
"""For each column, its value by utterance id."""
_SCORED_FIELDS: Final = tuple(name for name in Utterance.model_fields if name != "columns")
_ROWS_AT_ONCE = 1_024  # without audio
_SPELLINGS: Final = language_spellings(LANGUAGES)


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What to score."""

    utterances: tuple[Utterance, ...]
    columns: Columns = field(default_factory=dict)
    """The columns to score by."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a row of a corpus is not scored, by id."""


@dataclass(frozen=True, kw_only=True)
class SpeechQuery:
    """Which part of the speech to score."""

    split: Split = "test"
    limit: int | None = None
    by: tuple[str, ...] = ()
    """Columns to score by: further columns of the manifest or the corpus, those of a table, or fields."""
    language: str = "en"
    """Of rows that declare none."""


def read_speech(source: str, query: SpeechQuery, *, table: Path | None = None) -> Speech:
    """Read the utterances to score.

    A file ``*.jsonl`` that is no ``metadata.jsonl`` is a prepared manifest. Everything else is a corpus in a layout of
    ``LAYOUTS``, a folder or a URI such as ``hf://datasets/user/name``; its rows are not checked beforehand, and those
    that declare no split belong to the one that is asked for. The audio of Parquet stays where it is: each row group
    is fetched when its first row is recognized.

    Args:
        source: manifest or corpus.
        query: split, number and columns.
        table: CSV or JSON lines with ``id`` and further columns.

    Raises:
        ManifestError: a file that cannot be read, a split without utterances, or a corpus without a column.
        ConfigError: a column that is nowhere.
    """
    columns = {} if table is None else _read_table(table)
    name = PurePosixPath(source).name
    if name.endswith(".jsonl") and name != "metadata.jsonl":
        utterances = select_split(read_manifest(Path(source)), query.split, limit=query.limit)
        speech = Speech(utterances=tuple(utterances))
    else:
        keep = tuple(column for column in query.by if column not in FIELDS and column not in columns)
        speech = _read_corpus(source, query, keep)
    return replace(speech, columns={column: _column(column, speech.utterances, columns) for column in query.by})


def _column(name: str, utterances: Sequence[Utterance], columns: Columns) -> Mapping[str, str]:
    """Return a column of the table, a further column of the utterances, or a field of them.

    Raises:
        ConfigError: there is none of the name.
    """
    if name in columns:
        return columns[name]
    if name in _SCORED_FIELDS:
        values = ((one.id, getattr(one, name)) for one in utterances)
        return {row_id: str(value) for row_id, value in values if value is not None}
    kept = {one.id: one.columns[name] for one in utterances if name in one.columns}
    if not kept:
        further = (column for one in utterances for column in one.columns)
        known = ", ".join(dict.fromkeys((*columns, *further, *_SCORED_FIELDS)))
        raise ConfigError(
            f"by {name!r}: there is no such column; there are {known}; --prepare.keep-columns keeps others of a corpus,"
            " and --columns reads them from a file"
        )
    return kept


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    """Read the columns of CSV or JSON lines with an ``id``.

    Raises:
        ManifestError: a file that cannot be read, or a row without ``id``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_csv = path.suffix.lower() == ".csv"
        rows = csv.DictReader(text.splitlines()) if is_csv else map(json.loads, filter(str.strip, text.splitlines()))
        columns: dict[str, dict[str, str]] = {}
        for row in rows:
            row_id = str(row["id"])
            for name, value in row.items():
                if name != "id" and value not in (None, ""):
                    columns.setdefault(name, {})[row_id] = str(value)
    except OSError as error:
        raise ManifestError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(path, "is not CSV or JSON lines in UTF-8 with an id in every row") from error
    return columns


def _read_corpus(source: str, query: SpeechQuery, keep: Sequence[str]) -> Speech:
    """Read a corpus that was not prepared; its utterances get the columns ``keep``.

    Raises:
        ManifestError: it cannot be read, or has no row of the split, or no such column.
    """
    files = list_files(source)
    found = detect_format(files)
    is_streamed = LAYOUTS[found].read is None
    rows = _parquet_rows(files, keep) if is_streamed else iter(read_corpus(files, found, keep=keep))
    utterances: dict[str, Utterance] = {}
    left_out: dict[str, str] = {}
    corpus = PurePosixPath(source.rstrip("/")).stem
    for row in rows:
        if (row.split or query.split) != query.split:
            continue
        outcome = _to_utterance(row, corpus, query)
        if isinstance(outcome, str) or row.id in utterances:
            reason = outcome if isinstance(outcome, str) else "an earlier row bears the same id"
            left_out[row.id] = reason
            logger.warning("row %s is left out of the score: %s", row.id, reason)
        else:
            utterances[row.id] = outcome
        if len(utterances) == query.limit:
            break
    if not utterances:
        raise ManifestError(
            source, f"has no row of split {query.split} that can be scored; choose another with --split"
        )
    return Speech(utterances=tuple(utterances.values()), left_out=left_out)


def _to_utterance(row: CorpusRow, corpus: str, query: SpeechQuery) -> Utterance | str:
    """Return the utterance of a row, or why there is none. A length that nobody declared is known after reading."""
    if row.fault is not None:
        return row.fault
    if row.text is None:
        return "the transcript is missing"
    language = find_language(row.language or query.language, _SPELLINGS)
    if language is None:
        return f"Whisper has no language {row.language or query.language!r}; write an ISO 639-1 code"
    return Utterance(
        id=row.id,
        audio=row.audio,
        start_s=row.start_s,
        duration_s=row.duration_s or MAX_DURATION_S,
        text=row.text.strip(),
        language=language,
        task=row.task or "transcribe",
        speaker=row.speaker,
        recording=row.recording,
        corpus=corpus,
        split=query.split,
        columns=row.columns,
    )


def _parquet_rows(files: CorpusFiles, keep: Sequence[str]) -> Iterator[CorpusRow]:
    """Yield the rows of all shards without their audio, with the columns ``keep``.

    Raises:
        ManifestError: as ``parquet_files``.
    """
    from sottovoce.data.corpora.parquet import flatten_rows, parquet_files

    for file in parquet_files(files, keep=keep):
        with files.filesystem.open(files.path(file.name), "rb") as stream:
            parquet = pq.ParquetFile(stream)
            number = 0
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=list(file.columns)):
                table = pa.Table.from_batches([batch])
                known = flatten_rows(table, audio_column="", class_names=file.class_names)
                for record in known.to_pylist():
                    yield keep_columns(_to_row(record, file, number), keep)
                    number += 1


def _to_row(record: Mapping[str, object], file: "ParquetFile", number: int) -> CorpusRow:
    decoded = {
        key: value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        for key, value in record.items()
    }
    return fields.parse_fields(
        decoded, location="", row_id=file.row_id(number), audio=file.row_reference(number), split=file.split
    )
