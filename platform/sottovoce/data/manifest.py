"""Read and write the manifest, one utterance per line of JSON, and the rejects and warnings beside it."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from sottovoce.atomic_write import atomic_write
from sottovoce.errors import ManifestError
from sottovoce.schema import Record, Reject, RowWarning, Utterance

RecordT = TypeVar("RecordT", bound=Record)


def read_manifest(path: Path) -> list[Utterance]:
    """Read every utterance; relative audio paths become absolute, URIs stay unchanged.

    Args:
        path: a ``manifest.jsonl``; audio paths in it are relative to its folder.

    Raises:
        ManifestError: no such file, a line that is not an utterance (with its number and field), or an id that occurs
            twice.
    """
    folder = path.resolve().parent
    utterances: list[Utterance] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        utterance = _parse(line, path=path, number=number)
        first = line_of_id.setdefault(utterance.id, number)
        if first != number:
            raise ManifestError(path, f"line {number}, field id: {utterance.id!r} is already on line {first}")
        utterances.append(utterance.model_copy(update={"audio": _absolute(utterance.audio, folder)}))
    return utterances


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


def _absolute(audio: str, folder: Path) -> str:
    return audio if _is_uri(audio) else os.path.normpath(folder / audio)


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
