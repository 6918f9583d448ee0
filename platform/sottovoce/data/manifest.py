"""Read and write the manifest, one utterance per line of JSON, and the rejects and warnings beside it."""

import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pydantic import ValidationError

from sottovoce.atomic_write import atomic_write
from sottovoce.data.utterance_table import (
    FURTHER,
    SCHEMA,
    UtteranceTable,
    build_batch,
    combine_batches,
    combine_columns,
)
from sottovoce.errors import ManifestError
from sottovoce.schema import Record, Reject, RowWarning, Split, Task, Utterance

RecordT = TypeVar("RecordT", bound=Record)

_BLOCK_BYTES = 16 << 20  # read at a time; no line may be longer, or the manifest is read line by line
_LINES_AT_ONCE = 4_096  # of a manifest that is read line by line; as objects they take ten times the memory
_NEWLINE, _OPENING, _CLOSING = ord("\n"), list(b"{\r\n"), list(b"}\r\n")
_LINE_SCHEMA: Final = pa.schema(
    [(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type) for field in SCHEMA]
)
_FIELDS: Final = {name: Utterance.model_fields[name] for name in SCHEMA.names}
_REQUIRED: Final = tuple(name for name, field in _FIELDS.items() if field.default is not None)
"""Fields that are never null."""
_DEFAULTS: Final = {
    name: field.default for name, field in _FIELDS.items() if not field.is_required() and field.default is not None
}
_STRING = rb'"(?:[^"\\]|\\.)*"'
_FURTHER_COLUMNS: Final = re.compile(
    rb'"columns"\s*:\s*(\{\s*(?:%b\s*:\s*%b\s*,\s*)*%b\s*:\s*%b\s*\})?' % ((_STRING,) * 4)
)
"""The key of further columns and, if all of them are text, their object."""
_CHOICES: Final = {"task": get_args(Task), "split": get_args(Split)}
_NEEDS_CARE = r"://|(^|/)\.{0,2}(/|$)"  # a URI, an absolute path, or one with parts such as ``..``


def read_manifest(path: Path) -> list[Utterance]:
    """Read every utterance; relative audio paths become absolute, URIs stay unchanged.

    Args:
        path: a ``manifest.jsonl``; audio paths in it are relative to its folder.

    Raises:
        ManifestError: no such file, a line that is not an utterance (with its number and field), or an id that occurs
            twice.
    """
    return list(read_table(path))


def read_table(path: Path) -> UtteranceTable:
    """Read every utterance as ``read_manifest``, into columns: a million lines take seconds and a quarter of a GB.

    Arrow reads the lines, which is six times as fast as a model for each. What it cannot read, or reads as something
    that is not an utterance, is read again line by line, which says what is wrong and where.

    Raises:
        ManifestError: as ``read_manifest``.
    """
    columns = _read_columns(path)
    batch = _read_lines_of(path) if columns is None else combine_columns(columns)
    folder = str(path.resolve().parent)
    audio = _to_absolute(batch.column("audio"), folder)
    batch = batch.set_column(SCHEMA.get_field_index("audio"), SCHEMA.field("audio"), audio)
    pa.default_memory_pool().release_unused()
    return UtteranceTable(batch)


def read_rejects(path: Path) -> list[Reject]:
    """Read the rejected rows; none if there is no such file.

    Raises:
        ManifestError: a line is not a reject.
    """
    return _read_records(Reject, path)


def read_warnings(path: Path) -> list[RowWarning]:
    """Read the warnings about utterances; none if there is no such file.

    Raises:
        ManifestError: a line is not a warning.
    """
    return _read_records(RowWarning, path)


def write_manifest(utterances: Sequence[Utterance], path: Path) -> None:
    """Write one line per utterance, replacing the file atomically.

    Paths of audio below the manifest's folder are written relative to it, so that the folder can be moved.
    """
    folder = path.resolve().parent
    _write_lines((_relative_to(utterance, folder) for utterance in utterances), path)


def write_rejects(rejects: Sequence[Reject], path: Path) -> None:
    """Write one line per rejected row, replacing the file atomically."""
    _write_lines(rejects, path)


def write_warnings(warnings: Sequence[RowWarning], path: Path) -> None:
    """Write one line per warning, replacing the file atomically."""
    _write_lines(warnings, path)


def _read_columns(path: Path) -> dict[str, pa.ChunkedArray] | None:
    """Read all lines with Arrow; None if a line is no utterance, or an id occurs twice."""
    if not _has_objects_only(path):
        return None
    table = _parse_with_arrow(path)
    if table is None:
        further = _find_further_columns(path)
        table = _parse_with_arrow(path, further=further) if further else None
    if table is None:
        return None
    missing = [name for name in _DEFAULTS if table.column(name).null_count]
    if missing and _has_null(path, missing):
        return None
    for name in missing:
        column = pc.fill_null(table.column(name), _DEFAULTS[name])
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return {name: table.column(name) for name in table.column_names} if _are_utterances(table) else None


def _parse_with_arrow(path: Path, *, further: Sequence[str] = ()) -> pa.Table | None:
    """Read all lines with the fields of ``SCHEMA`` and further columns, called as there; None if they have others."""
    kinds = [("columns", pa.struct([(name, pa.string()) for name in further]))] if further else []
    schema = pa.schema([*_LINE_SCHEMA, *kinds])
    read = pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES)
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        table = pyarrow.json.read_json(path, read_options=read, parse_options=parse)
        table.validate(full=True)  # text that is not UTF-8
    except (OSError, pa.ArrowException):
        return None
    parts = table.column("columns").flatten() if further else ()
    for name, column in zip(further, parts, strict=True):
        table = table.append_column(FURTHER + name, column)
    return table.drop_columns(["columns"]) if further else table


def _find_further_columns(path: Path) -> tuple[str, ...]:
    """Return all names of further columns; none if one of them is not text."""
    found: dict[bytes | None, None] = {}  # few differ
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found.update((match[1], None) for match in _FURTHER_COLUMNS.finditer(data))
        names = {name: None for each in found if each is not None for name in json.loads(each)}
    except (OSError, ValueError):
        return ()
    return () if None in found else tuple(names)


def _has_objects_only(path: Path) -> bool:
    """Whether each line that is not empty begins and ends with a brace; Arrow 26 crashes on a line ``null``."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return all(_are_objects(data, start) for start in range(0, len(data), _BLOCK_BYTES))
    except (OSError, ValueError):  # nothing to read, or nothing in it
        return False


def _are_objects(data: mmap.mmap, start: int) -> bool:
    """Check the lines that end in one block, and the first after it."""
    block = np.frombuffer(data[max(start - 1, 0) : start + _BLOCK_BYTES + 1], np.uint8)
    ends = np.flatnonzero(block == _NEWLINE)
    begins = block[ends[ends + 1 < len(block)] + 1]
    lasts = block[ends[ends > 0] - 1]
    is_first_right = start > 0 or block[0] in _OPENING
    return bool(is_first_right and np.isin(begins, _OPENING).all() and np.isin(lasts, _CLOSING).all())


def _has_null(path: Path, names: Sequence[str]) -> bool:
    """Whether one of these fields is null, instead of left out."""
    pattern = re.compile(rb'"(?:%b)"\s*:\s*null' % "|".join(names).encode())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return pattern.search(data) is not None


def _are_utterances(table: pa.Table) -> bool:
    """Whether rows with the right types have the values that ``Utterance`` accepts, and ids that occur once."""
    if any(table.column(name).null_count for name in _REQUIRED):
        return False
    is_known = all(pc.all(pc.is_in(table.column(name), pa.array(values))).as_py() for name, values in _CHOICES.items())
    is_timed = pc.all(pc.greater_equal(table.column("start_s"), 0.0)).as_py()
    is_long = pc.all(pc.greater(table.column("duration_s"), 0.0)).as_py()
    return bool(is_known and is_timed and is_long) and pc.count_distinct(table.column("id")).as_py() == len(table)


def _read_lines_of(path: Path) -> pa.RecordBatch:
    """Read all lines, each as a model.

    Raises:
        ManifestError: as ``read_manifest``.
    """
    line_of_id: dict[str, int] = {}
    batches: list[pa.RecordBatch] = []
    some: list[Utterance] = []
    for number, utterance in _parse_lines(path):
        first = line_of_id.setdefault(utterance.id, number)
        if first != number:
            raise ManifestError(path, f"line {number}, field id: {utterance.id!r} is already on line {first}")
        some.append(utterance)
        if len(some) == _LINES_AT_ONCE:
            batches.append(build_batch(some))
            some = []
    return combine_batches([*batches, build_batch(some)])


def _parse_lines(path: Path) -> Iterator[tuple[int, Utterance]]:
    for number, line in enumerate(_read_lines(path), start=1):
        if line.strip():
            yield number, _parse(line, path=path, number=number)


def _read_records(record_class: type[RecordT], path: Path) -> list[RecordT]:
    if not path.is_file():
        return []
    try:
        return [record_class.model_validate_json(line) for line in _read_lines(path) if line.strip()]
    except ValidationError as error:
        raise ManifestError(path, f"a line is no {record_class.__name__.lower()}: {error}") from error


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError(path, f"is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise ManifestError(path, f"cannot be read: {error.strerror}; run jobs.prepare_manifest to make one") from error


def _parse(line: str, *, path: Path, number: int) -> Utterance:
    try:
        return Utterance.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(the whole line)"
        raise ManifestError(path, f"line {number}, field {field}: {first['msg']}") from error


def _to_absolute(audio: pa.Array, folder: str) -> pa.Array:
    """Join relative paths to a folder, and leave URIs."""
    is_plain = pc.invert(pc.match_substring_regex(audio, _NEEDS_CARE))
    parent, slash = (pa.scalar(text, audio.type) for text in (folder.rstrip("/"), "/"))
    joined = pc.if_else(is_plain, pc.binary_join_element_wise(parent, audio, slash), audio)
    rest = pc.filter(audio, pc.invert(is_plain)).to_pylist()
    if not rest:
        return joined
    normal = [one if _is_uri(one) else os.path.normpath(Path(folder) / one) for one in rest]
    return pc.replace_with_mask(joined, pc.invert(is_plain), pa.array(normal, joined.type))


def _is_uri(audio: str) -> bool:
    return "://" in audio


def _relative_to(utterance: Utterance, folder: Path) -> Utterance:
    audio = Path(utterance.audio)
    if _is_uri(utterance.audio) or not audio.is_relative_to(folder):
        return utterance
    return utterance.model_copy(update={"audio": audio.relative_to(folder).as_posix()})


def _write_lines(records: Iterable[Record], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (record.model_dump_json() + "\n" for record in records))
