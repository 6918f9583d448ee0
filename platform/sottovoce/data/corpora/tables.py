"""Parse metadata in JSONL, CSV and TSV: bytes to records or errors, each with its line number."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from sottovoce.data.corpora.files import utf8_bytes
from sottovoce.errors import ManifestError

Record: TypeAlias = Mapping[str, object]

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_csv(data: bytes, *, source: str, one_of: tuple[str, ...]) -> Iterator[tuple[int, Record | ValueError]]:
    """Parse quoted CSV; bytes that are not UTF-8 stay as surrogates in their field.

    Raises:
        ManifestError: the text is not CSV, has none of the columns ``one_of``, or another separator than the comma.
    """
    text = data.decode("utf-8", "surrogateescape")
    _require_separator(",", text, source=source, known=one_of)
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
        ManifestError: one of the columns ``all_of`` is missing, or columns have another separator than the tab.
    """
    text = data.decode("utf-8", "surrogateescape")
    _require_separator("\t", text, source=source, known=all_of)
    lines = text.split("\n")
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
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, read_json(line)


def read_json(data: bytes) -> Record | ValueError:
    """Parse one JSON object, or return the error; bytes that are not UTF-8 stay as surrogates in their field.

    A byte order mark is ignored: files may be joined from several that begin with one.
    """
    try:
        record = json.loads(utf8_bytes(data).decode("utf-8", "surrogateescape"))
    except UnicodeError as error:
        return error
    except (ValueError, RecursionError):  # ValueError also for a number with too many digits
        return _explain(data)
    return record if isinstance(record, dict) else ValueError("is not a JSON object")


def _require_separator(separator: str, text: str, *, source: str, known: tuple[str, ...]) -> None:
    """Raise ManifestError if another separator divides the first line into columns of which one is known."""
    header = text.partition("\n")[0]
    used = [candidate for candidate in _SEPARATORS if _split_header(header, candidate) & set(known)]
    others = [candidate for candidate in used if candidate in header]
    if others and separator not in used:
        message = f"has its columns separated by {_SEPARATORS[others[0]]}"
        raise ManifestError(source, f"{message}; save it with {_SEPARATORS[separator]} between them")


def _split_header(header: str, separator: str) -> set[str]:
    return {name.strip().strip('"') for name in header.split(separator)}


def _explain(data: bytes) -> ValueError:
    """Return the error: text in another encoding, mostly UTF-16, or text that is not JSON."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error
    return ValueError("is not JSON")
