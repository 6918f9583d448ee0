"""What was promoted under each name: one small JSON file a name, with its history, and the releases' own files.

<models folder>/<name>.json                       which release is current, and all of them
<models folder>/.releases/<name>/<version>/       the files of one release, copied and never changed again

A file is replaced in one step, so readers see it as it was or as it is, never half of it. Writers take turns.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from pydantic import Field, ValidationError

from serve.settings import ServedFiles, Variant
from sottovoce.errors import CheckpointError
from sottovoce.schema import Record

_SUFFIX = ".json"
_RELEASES = ".releases"
CHECKPOINT_FOLDER = "checkpoint"
EXPORT_FOLDER = "export"


class Release(Record):
    """One version of a model, as it was promoted."""

    version: int = Field(ge=1)
    promoted: int
    """Unix time."""
    digest: str
    """Of its files' names, sizes and times and of this promotion: tells it from a release of the same number
    elsewhere."""
    variant: Variant
    """What the bare name stands for."""
    replaces: int | None
    """The version that was current before: what rolling back returns to."""
    checkpoint: str | None
    """Where its checkpoint was copied from; it is in the release's folder, or on the Hub."""
    export: str | None
    """Where its export was copied from."""
    base: str | None = None
    assistant: str | None = None


class ModelRecord(Record):
    """One name's file."""

    name: str
    current: int
    """The version that answers."""
    releases: tuple[Release, ...]
    """In the order they were promoted; those whose files were removed are not in it."""

    def release(self, version: int) -> Release | None:
        """Find one version."""
        return next((release for release in self.releases if release.version == version), None)


def release_folder(models_folder: Path, name: str, version: int) -> Path:
    """Give where a release's files are."""
    return models_folder / _RELEASES / _file_name(name) / str(version)


def release_files(models_folder: Path, name: str, release: Release) -> ServedFiles:
    """Give the files of a release: its own copies; a checkpoint of the Hub stays there."""
    folder = release_folder(models_folder, name, release.version)
    has_copy = (folder / CHECKPOINT_FOLDER).is_dir()
    return ServedFiles(
        checkpoint=str(folder / CHECKPOINT_FOLDER) if has_copy else release.checkpoint,
        export=None if release.export is None else str(folder / EXPORT_FOLDER),
        variant=release.variant,
        base=release.base,
        assistant=release.assistant,
    )


def read_records(models_folder: Path) -> dict[str, ModelRecord | CheckpointError]:
    """Read every name's file, in the order of names.

    Returns:
        By name its record, or what is wrong with its file: one that is no record hides no other.
    """
    records: dict[str, ModelRecord | CheckpointError] = {}
    for path in sorted(models_folder.glob(f"*{_SUFFIX}")):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            record = _read(path)
        except CheckpointError as error:
            records[unquote(path.stem)] = error
        else:
            if record is not None:
                records[record.name] = record
    return records


def was_promoted(models_folder: Path, name: str) -> bool:
    """Tell whether releases of a name are kept, whatever has become of its file."""
    return release_folder(models_folder, name, 0).parent.is_dir()


def read_record(models_folder: Path, name: str) -> ModelRecord | None:
    """Read one name's file; None where nothing was promoted under it.

    Raises:
        CheckpointError: the file is no such record.
    """
    return _read(_record_path(models_folder, name))


def change_record(models_folder: Path, name: str, change: Callable[[ModelRecord | None], ModelRecord]) -> ModelRecord:
    """Replace one name's file by what ``change`` makes of it, alone among all who would.

    Whoever reads it meanwhile gets the old one; once this returns, the new one survives a loss of power.

    Raises:
        CheckpointError: the file is no such record.
    """
    with _taking_turns(models_folder, name):
        record = change(read_record(models_folder, name))
        _replace(_record_path(models_folder, name), record.model_dump_json(indent=2) + "\n")
    return record


def _read(path: Path) -> ModelRecord | None:
    try:
        record = ModelRecord.model_validate_json(path.read_bytes())  # bytes: it tells of bad UTF-8 as of all else
    except FileNotFoundError:
        return None
    except ValidationError as error:
        reason = f"it is no record of a promoted model; mend it, or move it elsewhere: {error}"
        raise CheckpointError(path, reason) from error
    if path != _record_path(path.parent, record.name):
        raise CheckpointError(path, f"it is a copy of the record of {record.name!r}; move it elsewhere")
    return record


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's list of names survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _taking_turns(models_folder: Path, name: str) -> Iterator[None]:
    """Hold the name's lock; the system lets go of it where the process dies."""
    models_folder.mkdir(parents=True, exist_ok=True)
    with (models_folder / f".{_file_name(name)}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _record_path(models_folder: Path, name: str) -> Path:
    return models_folder / f"{_file_name(name)}{_SUFFIX}"


def _file_name(name: str) -> str:
    return quote(name, safe="")  # a name may hold slashes
