"""A corpus as its author wrote it: rows to be checked, from an audio folder or a JSONL file.

An audio folder has the layout Hugging Face's ``audiofolder`` reads: ``metadata.csv`` or ``metadata.jsonl`` at its
root or in folders such as ``train/`` and ``test/``, with ``file_name`` relative to the metadata's own folder.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sottovoce.errors import ManifestError
from sottovoce.schema import Split

_AUDIO_KEYS = ("audio", "file_name")
_TEXT_KEYS = ("text", "transcription", "sentence", "transcript")
_SPEAKER_KEYS = ("speaker", "speaker_id", "client_id")
_SPLITS: Final[Mapping[str, Split]] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True)
class CorpusRow:
    """One row before any check; ``fault`` says why it cannot be read, if it cannot."""

    id: str
    audio: str
    """Absolute path of the recording; empty where the row names none."""
    text: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    language: str | None = None
    speaker: str | None = None
    split: Split | None = None
    """As the corpus declares it; None where it does not."""
    fault: str | None = None


def read_corpus(path: Path) -> list[CorpusRow]:
    """Read all rows of a corpus; a row that cannot be read becomes one with a ``fault``.

    Args:
        path: a JSONL file with our keys (``audio``, ``text``, optionally ``id``, ``start_s``, ``duration_s``,
            ``language``, ``speaker``, ``split``), or an audio folder.

    Raises:
        ManifestError: nothing there, no metadata or two kinds of it in one folder, or a file that cannot be read.
    """
    path = path.resolve()
    if path.is_file():
        return list(_read_table(path, corpus=path.parent))
    tables = sorted([*path.rglob("metadata.csv"), *path.rglob("metadata.jsonl")])
    if not tables:
        raise ManifestError(path, "holds neither metadata.csv nor metadata.jsonl; write one with file_name and text")
    for table in tables:
        if table.suffix == ".csv" and table.with_suffix(".jsonl") in tables:
            raise ManifestError(table.parent, "holds both metadata.csv and metadata.jsonl; keep one")
    return [row for table in tables for row in _read_table(table, corpus=path)]


def _read_table(path: Path, *, corpus: Path) -> Iterator[CorpusRow]:
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ManifestError(path, f"cannot be read: {error.strerror}") from error
    label = path.relative_to(corpus).as_posix()
    records = _read_csv(data, path) if path.suffix == ".csv" else _read_jsonl(data)
    for number, record in records:
        place = f"{label}:{number}"
        if isinstance(record, str):
            yield CorpusRow(id=place, audio="", fault=record)
        else:
            yield _parse(record, place=place, folder=path.parent, corpus=corpus)


def _read_csv(data: bytes, path: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Yield line number, and the row or what is wrong with it; bytes that are no UTF-8 stay as surrogates."""
    reader = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""), strict=True)
    try:
        if not set(_AUDIO_KEYS) & set(reader.fieldnames or ()):
            raise ManifestError(path, f"has no column {' or '.join(_AUDIO_KEYS)} in its first line")
        for row in reader:
            is_ragged = None in row
            yield reader.line_num, "has more fields than the header; quote commas" if is_ragged else dict(row)
    except csv.Error as error:
        raise ManifestError(path, f"line {reader.line_num}: {error}") from error


def _read_jsonl(data: bytes) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield number, f"is not UTF-8 at byte {error.start}; save it as UTF-8"
        except (json.JSONDecodeError, RecursionError):
            yield number, "is not JSON"
        else:
            yield number, row if isinstance(row, dict) else "is not a JSON object"


def _parse(record: Mapping[str, object], *, place: str, folder: Path, corpus: Path) -> CorpusRow:
    """Turn one row into our words; ``place`` names it where it names nothing itself."""
    name = _first(record, _AUDIO_KEYS)
    row_id, audio = place, ""
    try:
        path = _absolute(_printable(name), folder) if name is not None else None
        audio = str(path) if path else ""
        given = _first(record, ("id",))
        row_id = _printable(given) if given is not None else _id_of(path, corpus) or place
        if path is None:
            return CorpusRow(id=row_id, audio="", fault="names no audio file")
        text, speaker, language = (_first(record, keys) for keys in (_TEXT_KEYS, _SPEAKER_KEYS, ("language",)))
        return CorpusRow(
            id=row_id,
            audio=audio,
            text=None if text is None else _printable(text),
            start_s=_seconds(record, "start_s") or 0.0,
            duration_s=_seconds(record, "duration_s"),
            language=None if language is None else _printable(language),
            speaker=None if speaker is None else _printable(speaker),
            split=_split(record, folder, corpus),
        )
    except (TypeError, ValueError) as error:  # raised below with what is wrong, by UnicodeError among them
        return CorpusRow(id=row_id, audio=audio, fault=f"{place}: {_describe(error)}")


def _first(record: Mapping[str, object], keys: tuple[str, ...]) -> object | None:
    return next((record[key] for key in keys if record.get(key) not in (None, "")), None)


def _printable(value: object) -> str:
    """Give a string that UTF-8 can write.

    Raises:
        TypeError: not a string or an integer.
        UnicodeEncodeError: bytes of another encoding, kept as surrogates.
    """
    if isinstance(value, int) and not isinstance(value, bool):  # speakers and ids are often numbers
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text belongs")
    value.encode("utf-8")
    if "\0" in value:
        raise ValueError("text holds a NUL character")
    return value


def _absolute(name: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / name))


def _id_of(path: Path | None, corpus: Path) -> str | None:
    if path is None:
        return None
    return path.relative_to(corpus).as_posix() if path.is_relative_to(corpus) else path.as_posix()


def _seconds(record: Mapping[str, object], key: str) -> float | None:
    value = _first(record, (key,))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{key} is {type(value).__name__}, not a number")
    seconds = float(value)
    if not 0.0 <= seconds < 1e9:  # also refuses NaN
        raise ValueError(f"{key} is {value}, not a time in seconds")
    return seconds


def _split(record: Mapping[str, object], folder: Path, corpus: Path) -> Split | None:
    """Read the split from the row, or else from the folder the metadata lies in."""
    declared = _first(record, ("split",))
    if declared is None:
        parts = folder.relative_to(corpus).parts
        return next((_SPLITS[part.lower()] for part in parts if part.lower() in _SPLITS), None)
    split = _SPLITS.get(str(declared).strip().lower())
    if split is None:
        raise ValueError(f"split is {declared!r}, not train, validation or test")
    return split


def _describe(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "text is not UTF-8; save the metadata as UTF-8"
    return str(error)
