"""Read Parquet with the audio inside, the Hub's format, streamed through Ray Data and never downloaded as a whole.

Files are named like ``data/train-00000-of-00003.parquet``. A struct with ``bytes`` or a binary column holds the bytes
of the recording's file, and a column such as ``text`` or ``transcription`` the transcript. Text may have any of Arrow's
types for strings and bytes, and the Hub's class numbers are read as their names.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.data import DataContext

from sottovoce.audio.parquet_rows import describe_audio_columns, find_audio_column, hub_features, is_text
from sottovoce.data.corpora import fields
from sottovoce.data.corpora.columns import keep_columns, require_columns
from sottovoce.data.corpora.files import CorpusFiles, CorpusLocation, list_files, open_filesystem
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError
from sottovoce.schema import Split

_STRING_KEYS = (*fields.TEXT_KEYS, *fields.LANGUAGE_KEYS, *fields.TASK_KEYS, "target_lang", "split")
_NAME_KEYS = (*fields.ID_KEYS, *fields.SPEAKER_KEYS, *fields.RECORDING_KEYS)
_KNOWN_KEYS = frozenset({*_STRING_KEYS, *_NAME_KEYS, *fields.TIME_KEYS})
_ROWS_PER_READ = 32  # 30 s of FLAC are 1 MB: a read takes tens of MB
_BLOCK_BYTES = 32 << 20  # a quarter of Ray's default: compressed audio grows tenfold when decoded
_FOOTER_THREADS = 8  # footers are small, and latency dominates; guess


@dataclass(frozen=True, kw_only=True)
class ParquetFile:
    """One shard, described by its footer."""

    name: str
    """Relative to the corpus."""
    reference: str
    num_rows: int
    split: Split | None
    """The split that the shard's name or folder declares."""
    audio_column: str
    columns: tuple[str, ...]
    """The other columns that are read: the known ones, and those to keep."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of the classes 0, 1, ... of each column that is read and holds their numbers."""
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]), compare=False)
    """Of all columns that are read: the types to read them as, which Ray can pass on."""

    def row_id(self, number: int) -> str:
        """Return the id of a row, counted from 0, that has none; ids sort in the order of the rows."""
        return f"{self.name}/{number:07d}"

    def row_reference(self, number: int) -> str:
        """Return the reference of the recording in a row, counted from 0."""
        return f"{self.reference}#row={number}"


def stream_parquet(location: CorpusLocation, files: Sequence[ParquetFile] | None = None) -> ray.data.Dataset:
    """Stream the rows of every shard, with their audio, in the order of shards and rows.

    Args:
        location: a shard or a folder of shards, local or a URI that fsspec can read, such as
            ``hf://datasets/user/name``.
        files: result of ``parquet_files``, so that footers are read once; None to read them.

    Returns:
        Rows for ``parse_parquet_row``: ``audio`` (the recording's file as bytes, or null), ``path`` (the shard), and
        the metadata, with text as bytes, since some shards hold text that is not valid UTF-8.

    Raises:
        ManifestError: as ``parquet_files``.
    """
    listed = list_files(location)
    files = parquet_files(listed) if files is None else files
    audio_column, columns = files[0].audio_column, files[0].columns
    with DataContext.current(_ordered_context()):
        dataset = ray.data.read_parquet(
            [listed.path(file.name) for file in files],
            filesystem=filesystem_for(listed),
            columns=[audio_column, *columns],
            schema=files[0].schema,
            partitioning=None,
            include_paths=True,
            file_extensions=None,
            batch_size=_ROWS_PER_READ,
            batch_readahead=1,
        )
    return dataset.map_batches(
        partial(flatten_rows, audio_column=audio_column, class_names=files[0].class_names),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
    )


def parquet_files(location: CorpusLocation, *, keep: Sequence[str] = ()) -> list[ParquetFile]:
    """Read the footer of every shard.

    Args:
        location: as ``stream_parquet``.
        keep: names of further columns to read.

    Returns:
        Shards in the order ``stream_parquet`` reads them.

    Raises:
        ManifestError: no shard, one that cannot be read, one without audio, text or a column to keep, one with a column
            of a type that cannot be read, or two that differ in columns or in the names of classes.
    """
    listed = list_files(location)
    names = list(listed.names) if listed.is_single else listed.ending(".parquet")
    if not names:
        raise ManifestError(listed.location, "holds no .parquet file")
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        files = list(pool.map(lambda name: _read_footer(listed, name, keep), names))
    first = files[0]
    for file in files:
        if (file.audio_column, file.columns) != (first.audio_column, first.columns):
            message = f"has the columns {(file.audio_column, *file.columns)}, and {first.name} has others"
            raise ManifestError(listed.shown(file.name), f"{message}; prepare them as two corpora")
        if file.class_names != first.class_names:
            message = f"numbers its classes otherwise than {first.name}"
            raise ManifestError(listed.shown(file.name), f"{message}; prepare them as two corpora")
    return files


def list_rows(files: Sequence[ParquetFile]) -> Iterator[tuple[ParquetFile, int]]:
    """Return shard and number, from 0, of every row of ``stream_parquet``, in the same order."""
    return ((file, number) for file in files for number in range(file.num_rows))


def parse_parquet_row(values: Mapping[str, object], *, keep: Sequence[str] = ()) -> tuple[CorpusRow, bytes]:
    """Convert one row of ``stream_parquet`` to a row of the corpus and the bytes of its recording.

    The row gets the columns ``keep`` where they have a value. It does not contain its number: its ``audio`` is empty,
    and so is its ``id`` if the metadata has none. Both follow from counting rows with ``list_rows``.
    """
    record = {key: _decode(value) for key, value in values.items() if key not in ("audio", "path")}
    audio = values.get("audio")
    row = keep_columns(fields.parse_fields(record, location="", row_id="", audio=""), keep)
    if isinstance(audio, bytes) and audio:
        return row, audio
    return CorpusRow(id=row.id, audio="", fault="holds no audio"), b""


def flatten_rows(
    table: pa.Table, *, audio_column: str, class_names: Mapping[str, tuple[str, ...]] | None = None
) -> pa.Table:
    """Convert the columns that are read to the same few types, whatever types their shards have.

    The recording's bytes go into a column ``audio``. Text, the names of classes and all values of columns that are kept
    become bytes, which nothing decodes; times become seconds as 64-bit numbers.
    """
    class_names = class_names or {}
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        column = table.column(name)
        if name == audio_column:
            is_struct = pa.types.is_struct(column.type)
            columns["audio"] = (pc.struct_field(column, "bytes") if is_struct else column).cast(pa.large_binary())
        elif name in class_names:
            columns[name] = _name_classes(column, class_names[name])
        elif name != "path" and is_text(column.type):
            columns[name] = column.cast(pa.large_binary())
        elif name in fields.TIME_KEYS:
            columns[name] = column.cast(pa.float64(), safe=False)
        else:
            is_kept = name != "path" and name not in _KNOWN_KEYS
            columns[name] = _write_as_text(column) if is_kept else column
    return pa.table(columns)


def filesystem_for(location: CorpusLocation) -> PyFileSystem:
    """Return the corpus's fsspec file system for pyarrow."""
    filesystem = location.filesystem if isinstance(location, CorpusFiles) else open_filesystem(location)[0]
    return PyFileSystem(FSSpecHandler(filesystem))


def _ordered_context() -> DataContext:
    """Return the settings that keep the order of shards and rows.

    Ray 2.60's newer Parquet reader packs row groups into tasks by size, which loses the order and so the row numbers;
    the older reader keeps the order.
    """
    context = DataContext.get_current().copy()
    context.use_datasource_v2 = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = _BLOCK_BYTES
    return context


def _read_footer(files: CorpusFiles, name: str, keep: Sequence[str]) -> ParquetFile:
    source = files.shown(name)
    try:
        with files.filesystem.open(files.path(name), "rb") as stream:
            parquet = pq.ParquetFile(stream)
            schema, num_rows = parquet.schema_arrow, parquet.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(source, f"is no whole Parquet file: {error}") from error
    audio_column = find_audio_column(schema)
    if audio_column is None:
        raise ManifestError(source, f"has no column of audio bytes {describe_audio_columns(schema)}")
    # Ray adds a column path, with the shard's.
    require_columns(keep, [column for column in schema.names if column not in (audio_column, "path")], source=source)
    wanted = (_KNOWN_KEYS | set(keep)) - {audio_column}
    class_names = _find_class_names(schema, wanted)
    columns = _choose_columns(schema, wanted, class_names, source=source)
    if not set(columns) & set(fields.TEXT_KEYS):
        raise ManifestError(source, f"has no text column; looked for {', '.join(fields.TEXT_KEYS)}")
    return ParquetFile(
        name=name,
        reference=files.reference(name),
        num_rows=num_rows,
        split=fields.split_of_name(name),
        audio_column=audio_column,
        columns=columns,
        class_names={column: class_names[column] for column in columns if column in class_names},
        schema=pa.schema([(name, _plain_type(schema.field(name).type)) for name in (audio_column, *columns)]),
    )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type to read a column as. Ray cannot pass views on, and shards may store a column in several ways."""
    if pa.types.is_struct(kind):
        return pa.struct([(one.name, _plain_type(one.type)) for one in kind])
    return pa.large_binary() if is_text(kind) else kind


def _choose_columns(
    schema: pa.Schema, wanted: Set[str], class_names: Mapping[str, tuple[str, ...]], *, source: str
) -> tuple[str, ...]:
    """Return the wanted columns there are; refuse one that cannot be read, since its rows would lose what it says."""
    found = [column for column in schema if column.name in wanted]
    for column in found:
        kind = _wanted_type(column, class_names)
        if kind is not None:
            message = f"column {column.name} has the type {column.type}, which cannot be read as {kind}"
            raise ManifestError(source, f"{message}; store it as {kind}, or rename or remove it if it is not meant")
    return tuple(column.name for column in found if not pa.types.is_null(column.type))


def _wanted_type(column: pa.Field, class_names: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return what a column ought to hold, or None if it holds that; one without any value holds anything."""
    kind = column.type
    if pa.types.is_null(kind) or is_text(kind) or column.name in class_names:
        return None
    is_whole = bool(pa.types.is_integer(kind))
    if column.name not in _KNOWN_KEYS:
        return None if _can_be_text(kind) else "text, a number or a date"
    if column.name in fields.TIME_KEYS:
        is_number = is_whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        return None if is_number else "a number of seconds"
    if column.name in _NAME_KEYS:
        return None if is_whole else "text or a whole number"
    return "text"


def _can_be_text(kind: pa.DataType) -> bool:
    """Whether Arrow can write values of a type as text: not those of lists and structs."""
    try:
        pa.array([], kind).cast(pa.string())
    except pa.ArrowNotImplementedError:
        return False
    return True


def _find_class_names(schema: pa.Schema, wanted: Set[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of columns that hold their numbers; numbers of speakers and ids are names."""
    features = hub_features(schema)
    may_have_classes = wanted - {*_NAME_KEYS, *fields.TIME_KEYS}
    return {
        column.name: tuple(map(str, features[column.name]["names"]))
        for column in schema
        if column.name in may_have_classes
        and pa.types.is_integer(column.type)
        and isinstance(features.get(column.name, {}).get("names"), list)
    }


def _write_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers, dates and truth values as bytes of text; a number that is none is missing."""
    if pa.types.is_float32(column.type) or pa.types.is_float64(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column.cast(pa.string()).cast(pa.large_binary())


def _name_classes(numbers: pa.ChunkedArray, names: tuple[str, ...]) -> pa.Array:
    """Return the names of classes as bytes; -1 is the Hub's missing class, and a number without a name stays one."""
    known: dict[int | None, str | None] = {None: None, -1: None, **dict(enumerate(names))}
    return pa.array((known.get(number, str(number)) for number in numbers.to_pylist()), pa.string()).cast(
        pa.large_binary()
    )


def _decode(value: object) -> object:
    """Decode bytes to text; bytes that are not UTF-8 stay as surrogates, which become the row's fault."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
