"""Parse metadata in JSONL, CSV and TSV: bytes to records or errors, each with its line number."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from sottovoce.errors import ManifestError

Record: TypeAlias = Mapping[str, object]

_BOM = b"\xef\xbb\xbf"  # spreadsheets write it before UTF-8


def read_csv(data: bytes, *, source: str, one_of: tuple[str, ...]) -> Iterator[tuple[int, Record | ValueError]]:
    """Parse quoted CSV; bytes that are not UTF-8 stay as surrogates in their field.

    Raises:
        ManifestError: the text is not CSV, or has none of the columns ``one_of``.
    """
    text = data.removeprefix(_BOM).decode("utf-8", "surrogateescape")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if not set(one_of) & set(reader.fieldnames or ()):
            raise ManifestError(source, f"has no column {' or '.join(one_of)} in its first line")
        for row in reader:
            is_ragged = None in row
            yield reader.line_num, ValueError("has more fields than the header; quote commas") if is_ragged else row
    except csv.Error as error:
        raise ManifestError(source, f"line {reader.reader.line_num}: {error}") from error


def read_tsv(data: bytes, *, source: str, all_of: tuple[str, ...]) -> Iterator[tuple[int, Record | ValueError]]:
    """Parse unquoted TSV; bytes that are not UTF-8 stay as surrogates in their field.

    The csv module is not used: here a quotation mark is an ordinary character of a sentence, and so is a carriage
    return, at which csv would stop.

    Raises:
        ManifestError: one of the columns ``all_of`` is missing.
    """
    lines = data.removeprefix(_BOM).decode("utf-8", "surrogateescape").split("\n")
    header = lines[0].removesuffix("\r").split("\t")
    missing = [column for column in all_of if column not in header]
    if missing:
        raise ManifestError(source, f"has no column {' or '.join(missing)} in its first line")
    for number, line in enumerate(lines[1:], start=2):
        values = line.removesuffix("\r").split("\t")
        if len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
        elif line.strip():
            yield number, ValueError(f"has {len(values)} fields where the header has {len(header)}")


def read_jsonl(data: bytes) -> Iterator[tuple[int, Record | ValueError]]:
    """Parse one JSON object per line."""
    for number, line in enumerate(data.removeprefix(_BOM).split(b"\n"), start=1):
        if line.strip():
            yield number, read_json(line)


def read_json(data: bytes) -> Record | ValueError:
    """Parse one JSON object, or return the error; bytes that are not UTF-8 stay as surrogates in their field."""
    try:
        record = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):  # ValueError also for a number with too many digits
        return _explain(data)
    return record if isinstance(record, dict) else ValueError("is not a JSON object")


def _explain(data: bytes) -> ValueError:
    """Return the error: text in another encoding, mostly UTF-16, or text that is not JSON."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error
    return ValueError("is not JSON")
