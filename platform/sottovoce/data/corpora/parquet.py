"""Parquet with the audio inside, as the Hub keeps data sets: streamed through Ray Data, never downloaded whole.

``data/train-00000-of-00003.parquet`` and the like; a struct with ``bytes`` or a binary column holds the recording
as its file's bytes, and a column such as ``text`` or ``transcription`` what was said.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.data import DataContext

from sottovoce.audio.parquet_rows import find_audio_column
from sottovoce.data.corpora import fields
from sottovoce.data.corpora.files import CorpusFiles, CorpusLocation, list_files, open_filesystem
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError
from sottovoce.schema import Split

_STRING_KEYS = (*fields.TEXT_KEYS, *fields.LANGUAGE_KEYS, *fields.TASK_KEYS, "target_lang", "split")
_NAME_KEYS = (*fields.ID_KEYS, *fields.SPEAKER_KEYS, *fields.RECORDING_KEYS)
_ROWS_PER_READ = 32  # 30 s of FLAC are 1 MB: a read stays in the tens of MB
_BLOCK_BYTES = 32 << 20  # a quarter of Ray's own: blocks of compressed audio grow tenfold once decoded
_FOOTER_THREADS = 8  # footers are small and far away; guess


@dataclass(frozen=True, kw_only=True)
class ParquetFile:
    """One shard, as its footer tells."""

    name: str
    """Relative to the corpus."""
    reference: str
    num_rows: int
    split: Split | None
    """As the shard's name or folder declares it."""
    audio_column: str
    columns: tuple[str, ...]
    """The other columns that are read."""

    def row_id(self, number: int) -> str:
        """Name a row, counted from 0, that names nothing itself; ids sort as the rows do."""
        return f"{self.name}/{number:07d}"

    def row_reference(self, number: int) -> str:
        """Refer to the recording in a row, counted from 0."""
        return f"{self.reference}#row={number}"


def stream_parquet(location: CorpusLocation, files: Sequence[ParquetFile] | None = None) -> ray.data.Dataset:
    """Stream the rows of every shard, with their audio, in the order of shards and rows.

    Args:
        location: a shard or a folder of them, local or behind any protocol fsspec knows, ``hf://datasets/user/name``
            among them.
        files: from ``parquet_files``, to read the footers once.

    Returns:
        Rows for ``parse_parquet_row``: ``audio`` (the recording's file as bytes, or null), ``path`` (the shard), and
        what metadata there is, with text as bytes, since not every shard's text is the UTF-8 it claims to be.

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
            partitioning=None,
            include_paths=True,
            file_extensions=None,
            batch_size=_ROWS_PER_READ,
            batch_readahead=1,
        )
    return dataset.map_batches(
        partial(flatten_rows, audio_column=audio_column),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
    )


def parquet_files(location: CorpusLocation) -> list[ParquetFile]:
    """Read the footer of every shard.

    Returns:
        Shards in the order ``stream_parquet`` reads them.

    Raises:
        ManifestError: no shard, one that cannot be read, one without audio or text, or two that differ in columns.
    """
    listed = list_files(location)
    names = list(listed.names) if listed.is_single else listed.ending(".parquet")
    if not names:
        raise ManifestError(listed.location, "holds no .parquet file")
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        files = list(pool.map(lambda name: _read_footer(listed, name), names))
    first = files[0]
    for file in files:
        if (file.audio_column, file.columns) != (first.audio_column, first.columns):
            message = f"has the columns {(file.audio_column, *file.columns)}, and {first.name} has others"
            raise ManifestError(listed.shown(file.name), f"{message}; prepare them as two corpora")
    return files


def list_rows(files: Sequence[ParquetFile]) -> Iterator[tuple[ParquetFile, int]]:
    """Give shard and number, from 0, of every row that ``stream_parquet`` gives, in its order."""
    return ((file, number) for file in files for number in range(file.num_rows))


def parse_parquet_row(values: Mapping[str, object]) -> tuple[CorpusRow, bytes]:
    """Turn one row of ``stream_parquet`` into a row of the corpus and its recording's bytes.

    A row does not know its place: ``audio`` of the row is empty, and so is ``id`` where the row names none. Counting
    gives both, with ``list_rows``.
    """
    record = {key: _decode(value) for key, value in values.items() if key not in ("audio", "path")}
    audio = values.get("audio")
    row = fields.parse_fields(record, place="", row_id="", audio="")
    if isinstance(audio, bytes) and audio:
        return row, audio
    return CorpusRow(id=row.id, audio="", fault="holds no audio"), b""


def flatten_rows(table: pa.Table, *, audio_column: str) -> pa.Table:
    """Bring the recording's bytes to a column ``audio``, and text to bytes that nothing decodes on the way."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        column = table.column(name)
        if name == audio_column:
            is_struct = pa.types.is_struct(column.type)
            columns["audio"] = pc.struct_field(column, "bytes") if is_struct else column
        elif name != "path" and _is_text(column.type):
            columns[name] = column.cast(pa.large_binary())
        else:
            columns[name] = column
    return pa.table(columns)


def filesystem_for(location: CorpusLocation) -> PyFileSystem:
    """Give pyarrow the corpus's own fsspec file system: for ``hf://`` the Hub's."""
    filesystem = location.filesystem if isinstance(location, CorpusFiles) else open_filesystem(location)[0]
    return PyFileSystem(FSSpecHandler(filesystem))


def _ordered_context() -> DataContext:
    """Give the settings under which rows come in the order of shards and rows.

    Ray 2.60's newer Parquet reader packs row groups into tasks as they fit, so that order is lost and with it a row's
    number; the older one keeps both.
    """
    context = DataContext.get_current().copy()
    context.use_datasource_v2 = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = _BLOCK_BYTES
    return context


def _read_footer(files: CorpusFiles, name: str) -> ParquetFile:
    source = files.shown(name)
    try:
        with files.filesystem.open(files.path(name), "rb") as stream:
            parquet = pq.ParquetFile(stream)
            schema, num_rows = parquet.schema_arrow, parquet.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(source, f"is no whole Parquet file: {error}") from error
    audio_column = find_audio_column(schema)
    if audio_column is None:
        raise ManifestError(source, f"has no column of audio bytes among {', '.join(schema.names)}")
    columns = tuple(field.name for field in schema if field.name != audio_column and _is_read(field))
    if not set(columns) & set(fields.TEXT_KEYS):
        raise ManifestError(source, f"has no text column; looked for {', '.join(fields.TEXT_KEYS)}")
    return ParquetFile(
        name=name,
        reference=files.reference(name),
        num_rows=num_rows,
        split=fields.split_of_name(name),
        audio_column=audio_column,
        columns=columns,
    )


def _is_read(field: pa.Field) -> bool:
    """Tell whether a column is metadata we know; of another type it means something else, a class number mostly."""
    if field.name in _STRING_KEYS:
        return _is_text(field.type)
    if field.name in _NAME_KEYS:
        return _is_text(field.type) or bool(pa.types.is_integer(field.type))
    return field.name in fields.TIME_KEYS and bool(pa.types.is_floating(field.type) or pa.types.is_integer(field.type))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _decode(value: object) -> object:
    """Give text of bytes; what is no UTF-8 stays as surrogates, which become the row's fault."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
