"""Lines of metadata: JSONL, CSV and TSV bytes to records, each with its line number or what is wrong with it."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from sottovoce.errors import ManifestError

Record: TypeAlias = Mapping[str, object]

_BOM = b"\xef\xbb\xbf"  # that spreadsheets write before UTF-8


def read_csv(data: bytes, *, source: str) -> Iterator[tuple[int, Record | Exception]]:
    """Read quoted CSV; bytes that are no UTF-8 stay as surrogates in their field.

    Raises:
        ManifestError: text that is no CSV.
    """
    text = data.removeprefix(_BOM).decode("utf-8", "surrogateescape")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            is_ragged = None in row
            yield reader.line_num, ValueError("has more fields than the header; quote commas") if is_ragged else row
    except csv.Error as error:
        raise ManifestError(source, f"line {reader.line_num}: {error}") from error


def read_header(data: bytes, delimiter: str) -> tuple[str, ...]:
    """Read the names of a table's columns."""
    line = data.removeprefix(_BOM).split(b"\n", 1)[0].decode("utf-8", "replace")
    return tuple(next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_MINIMAL), ()))


def read_tsv(data: bytes) -> Iterator[tuple[int, Record | Exception]]:
    """Read unquoted TSV: a quotation mark is a character of the sentence like any other."""
    lines = enumerate(data.removeprefix(_BOM).split(b"\n"), start=1)
    header = next(lines)[1].decode("utf-8", "replace").rstrip("\r").split("\t")
    for number, line in lines:
        if not line.strip():
            continue
        try:
            values = line.decode("utf-8").rstrip("\r").split("\t")
        except UnicodeDecodeError as error:
            yield number, error
        else:
            is_whole = len(values) == len(header)
            fault = ValueError(f"has {len(values)} fields where the header has {len(header)}")
            yield number, dict(zip(header, values, strict=True)) if is_whole else fault


def read_jsonl(data: bytes) -> Iterator[tuple[int, Record | Exception]]:
    """Read one JSON object a line."""
    for number, line in enumerate(data.removeprefix(_BOM).split(b"\n"), start=1):
        if line.strip():
            yield number, read_json(line)


def read_json(data: bytes) -> Record | Exception:
    """Read one JSON object, or give what is wrong with it."""
    try:
        record = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return error
    except (json.JSONDecodeError, RecursionError):
        return ValueError("is not JSON")
    return record if isinstance(record, dict) else ValueError("is not a JSON object")
