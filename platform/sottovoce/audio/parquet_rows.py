"""Read the audio bytes of rows of Parquet files, in the Hub's layout or as a plain binary column: one row, or many.

A single row costs its whole row group. Who needs many, in any order, reads them once by ``read_rows`` and stores them.
"""

import json
from bisect import bisect_left
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from sottovoce.audio.remote import PatientFile, is_remote, open_file_system, redact, retry
from sottovoce.errors import AudioDecodeError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

_NUM_KEPT = 2  # row groups a process caches: neighbours in a manifest are mostly neighbours in the file
_MAX_KEPT_BYTES = 64 * 2**20  # of one row group's audio; the Hub writes 100 rows to a group, some 15 MB of speech
_ROWS_AT_ONCE = 8  # of a bigger row group, which is not kept: 8 x 30 s of CD audio are 42 MB
_BINARY_NAMES = ("audio", "speech", "recording", "wav", "flac", "mp3")


@dataclass(frozen=True)
class _RowGroup:
    file: tuple[str, int, int]
    """Location, size and modification time, so that a rewritten file is read again."""
    first_row: int
    column: "pa.ChunkedArray"


_kept: list[_RowGroup] = []  # of this process, the last one used first
_lock = Lock()  # held while a row group is read: threads that want the same one read it once


def find_audio_column(schema: "pa.Schema") -> str | None:
    """Return the name of the column that holds encoded recordings, or None.

    It is the column that the Hub's metadata calls Audio; else the first struct with binary ``bytes``; else the first
    binary column with a name such as audio or wav. If none of the columns that the metadata calls Audio holds bytes,
    no other column, such as one of images, takes their place.
    """
    names = _marked_as_audio(schema)
    marked = [field for field in schema if field.name in names]
    if marked:
        return next((field.name for field in marked if _holds_bytes(field.type)), None)
    structs = [field.name for field in schema if _is_struct_of_bytes(field.type)]
    binaries = [field.name for field in schema if field.name in _BINARY_NAMES and is_binary(field.type)]
    return next(iter((*structs, *binaries)), None)


def describe_audio_columns(schema: "pa.Schema") -> str:
    """Return a sentence about a table in which ``find_audio_column`` finds nothing: its columns, and what to do."""
    suspects = {*_marked_as_audio(schema), *_BINARY_NAMES}
    types = [f"{field.name} has the type {field.type}" for field in schema if field.name in suspects]
    wanted = "store each recording's file as binary, in a column audio"
    return f"among {', '.join(schema.names)}; {', '.join((*types, wanted))}"


def hub_features(schema: "pa.Schema") -> dict[str, dict[str, Any]]:
    """Return what the Hub's metadata says of each column, such as ``{"_type": "Audio"}``; empty without metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):  # no such metadata, or of another form
        return {}


def is_binary(kind: "pa.DataType") -> bool:
    """Whether a type holds bytes: of any or a fixed length, as views, or encoded as a dictionary."""
    from pyarrow import types  # costs 60 ms

    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def is_text(kind: "pa.DataType") -> bool:
    """Whether a type holds text: strings of any kind, as views, or encoded as a dictionary; or bytes.

    Writers that do not mark their strings as text store them as bytes.
    """
    from pyarrow import types  # costs 60 ms

    plain = kind.value_type if types.is_dictionary(kind) else kind
    return is_binary(kind) or any(
        test(plain) for test in (types.is_string, types.is_large_string, types.is_string_view)
    )


def read_row(location: str, row: int) -> bytes:
    """Read the recording in one row; of the file, only the audio column of its row group is read.

    Args:
        location: a path or URI of a Parquet file.
        row: counted from 0 over the whole file.

    Raises:
        FileNotFoundError: nothing there.
        ConfigError: a protocol whose package is not installed.
        AudioDecodeError: no Parquet file, no audio column, a row outside the table or without bytes.
        StorageError: storage does not answer, or denies access.
    """
    identity = retry(lambda: _identify(location), location)
    with _lock:
        group = next((kept for kept in _kept if _holds(kept, identity, row)), None)
        data = _read_from_file(identity, row) if group is None else _to_bytes(group.column, row - group.first_row)
    if data is None:
        raise AudioDecodeError(redact(f"{location}#row={row}"), "the row holds no audio")
    return data


def read_rows(location: str, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Read the recordings in some rows, a few at a time; each row group that holds one of them is read once.

    Args:
        location: a path or URI of a Parquet file.
        rows: counted from 0 over the whole file.

    Yields:
        Each row and its recording, in the order of the file.

    Raises:
        FileNotFoundError, ConfigError, AudioDecodeError, StorageError: as ``read_row``.
    """
    wanted = sorted(set(rows))
    with retry(lambda: _open(location), location) as raw:
        stream = PatientFile(raw, location)
        with _name_damage(stream, location), _open_parquet(stream) as file:
            column_path = _find_column_path(file, location)
            for index, first_row, some in _group_rows(file, wanted, location):
                for row, data in _read_some(file, index, column_path, {row - first_row for row in some}):
                    if data is None:
                        raise AudioDecodeError(redact(f"{location}#row={first_row + row}"), "the row holds no audio")
                    yield first_row + row, data


def _group_rows(file: "ParquetFile", rows: list[int], location: str) -> Iterator[tuple[int, int, list[int]]]:
    """Yield each row group that holds some of these rows, its first row, and those that it holds."""
    first_row = position = 0
    for index in range(file.metadata.num_row_groups):
        stop = first_row + file.metadata.row_group(index).num_rows
        after = bisect_left(rows, stop)
        if after > position:
            yield index, first_row, rows[position:after]
        first_row, position = stop, after
    if position < len(rows):
        raise _outside(rows[position], first_row, location)


def _read_some(
    file: "ParquetFile", index: int, column_path: str, rows: Collection[int]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield rows of one row group, counted from its first."""
    first = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[index], columns=[column_path]):
        for row in range(first, first + batch.num_rows):
            if row in rows:
                yield row, _to_bytes(batch.column(0), row - first)
        first += batch.num_rows


def _identify(location: str) -> tuple[str, int, int]:
    if is_remote(location):
        return location, 0, 0  # size and time would cost one request per row
    status = Path(location).stat()
    return location, status.st_size, status.st_mtime_ns


def _holds(group: _RowGroup, file: tuple[str, int, int], row: int) -> bool:
    return group.file == file and group.first_row <= row < group.first_row + len(group.column)


def _read_from_file(identity: tuple[str, int, int], row: int) -> bytes | None:
    """Read and cache the row's group; of a big group, read batches up to the row and cache nothing."""
    location = identity[0]
    with retry(lambda: _open(location), location) as raw:
        stream = PatientFile(raw, location)
        with _name_damage(stream, location), _open_parquet(stream) as file:
            column_path = _find_column_path(file, location)
            index, first_row = _locate(file, row, location)
            if _count_bytes(file, index, column_path) > _MAX_KEPT_BYTES:
                return _read_up_to(file, index, column_path, row - first_row)
            column = file.read_row_group(index, columns=[column_path]).column(0)
    _kept[:] = [_RowGroup(identity, first_row, column), *_kept[: _NUM_KEPT - 1]]
    return _to_bytes(column, row - first_row)


@contextmanager
def _name_damage(stream: PatientFile, location: str) -> Iterator[None]:
    """Raise storage errors, which the stream keeps, as they are, and errors of a damaged table as AudioDecodeError.

    pyarrow raises OSError for some of the latter, too.
    """
    import pyarrow as pa  # costs 60 ms

    try:
        yield
    except AudioDecodeError:
        raise
    except (OSError, pa.ArrowException) as error:
        if stream.fault is not None:
            raise stream.fault from None
        raise AudioDecodeError(redact(location), f"no readable Parquet file ({type(error).__name__})") from None


def _open(location: str) -> Any:  # noqa: ANN401 - fsspec's files have no type
    if not is_remote(location):
        return Path(location).open("rb")
    file_system, path = open_file_system(location)
    return file_system.open(path, "rb")


def _open_parquet(stream: PatientFile) -> "ParquetFile":
    from pyarrow.parquet import ParquetFile  # costs 60 ms

    return ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)  # bytes read at a time: a big column is not held


def _find_column_path(file: "ParquetFile", location: str) -> str:
    """Return the column's path as Parquet writes it, with a dot before a struct's field."""
    schema = file.schema_arrow
    name = find_audio_column(schema)
    if name is None:
        raise AudioDecodeError(redact(location), f"no column holds audio bytes {describe_audio_columns(schema)}")
    return f"{name}.bytes" if _is_struct_of_bytes(schema.field(name).type) else name


def _locate(file: "ParquetFile", row: int, location: str) -> tuple[int, int]:
    """Return the index of the row group that holds a row, and the group's first row."""
    first_row = 0
    for index in range(file.metadata.num_row_groups):
        num_rows = file.metadata.row_group(index).num_rows
        if row < first_row + num_rows:
            return index, first_row
        first_row += num_rows
    raise _outside(row, first_row, location)


def _outside(row: int, num_rows: int, location: str) -> AudioDecodeError:
    return AudioDecodeError(redact(location), f"row {row} lies outside the table of {num_rows} rows")


def _count_bytes(file: "ParquetFile", index: int, column_path: str) -> int:
    group = file.metadata.row_group(index)
    columns = [group.column(number) for number in range(group.num_columns)]
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == column_path)


def _read_up_to(file: "ParquetFile", index: int, column_path: str, row: int) -> bytes | None:
    """Read a row group's column in small batches up to the row."""
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[index], columns=[column_path]):
        if row < batch.num_rows:
            return _to_bytes(batch.column(0), row)
        row -= batch.num_rows
    return None


def _to_bytes(column: "pa.Array | pa.ChunkedArray", row: int) -> bytes | None:
    value = column[row].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    return bytes(data) if data is not None else None


def _marked_as_audio(schema: "pa.Schema") -> list[str]:
    return [name for name, feature in hub_features(schema).items() if feature.get("_type") == "Audio"]


def _holds_bytes(kind: "pa.DataType") -> bool:
    return is_binary(kind) or _is_struct_of_bytes(kind)


def _is_struct_of_bytes(kind: "pa.DataType") -> bool:
    from pyarrow import types  # costs 60 ms

    return bool(types.is_struct(kind)) and kind.get_field_index("bytes") >= 0 and is_binary(kind.field("bytes").type)
