"""The registry of promoted models: one JSON file with its history for each name, and the files of the releases.

<models folder>/<name>.json                       which release is current, and all of them
<models folder>/.releases/<name>/<version>/       the files of one release, copied and never changed again

A file is replaced atomically, so readers see the old or the new one. A lock serializes writers.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from pydantic import Field, ValidationError

from serve.settings import ServedFiles
from sottovoce.atomic_write import atomic_write
from sottovoce.errors import CheckpointError
from sottovoce.model.variants import ServedVariant
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
    """Of its files' names, sizes and times and of this promotion: distinguishes it from a release of the same number
    elsewhere."""
    variant: ServedVariant
    """The variant that the bare name selects."""
    replaces: int | None
    """The previous current version, which a rollback returns to."""
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
    """The current version."""
    releases: tuple[Release, ...]
    """In order of promotion, without those whose files were deleted."""

    def release(self, version: int) -> Release | None:
        """Return one version; None if it is not there."""
        return next((release for release in self.releases if release.version == version), None)


def release_folder(models_folder: Path, name: str, version: int) -> Path:
    """Return the folder of a release's files."""
    return models_folder / _RELEASES / _file_name(name) / str(version)


def release_files(models_folder: Path, name: str, release: Release) -> ServedFiles:
    """Return the files of a release: its own copies, or the Hub id of its checkpoint."""
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
    """Read the records of all names, in the order of names.

    Returns:
        For each name its record, or the error of its file: a damaged file hides no other.
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
    """Return whether releases of a name exist, whatever the state of its record."""
    return release_folder(models_folder, name, 0).parent.is_dir()


def read_record(models_folder: Path, name: str) -> ModelRecord | None:
    """Read the record of a name; None if nothing was promoted under it.

    Raises:
        CheckpointError: the file is not a record.
    """
    return _read(_record_path(models_folder, name))


def change_record(models_folder: Path, name: str, change: Callable[[ModelRecord | None], ModelRecord]) -> ModelRecord:
    """Replace the record of a name by ``change`` of it, under the name's lock.

    Readers see the old record until then. The new one survives a power loss once this returns.

    Raises:
        CheckpointError: the file is not a record.
    """
    with _locked(models_folder, name):
        record = change(read_record(models_folder, name))
        text = record.model_dump_json(indent=2) + "\n"
        atomic_write(_record_path(models_folder, name), text, survives_power_loss=True)
    return record


def _read(path: Path) -> ModelRecord | None:
    try:
        record = ModelRecord.model_validate_json(
            path.read_bytes()
        )  # bytes: pydantic then reports invalid UTF-8 like any other error
    except FileNotFoundError:
        return None
    except ValidationError as error:
        reason = f"it is not the record of a promoted model; repair it, or move it elsewhere: {error}"
        raise CheckpointError(path, reason) from error
    if path != _record_path(path.parent, record.name):
        raise CheckpointError(path, f"it is a copy of the record of {record.name!r}; move it elsewhere")
    return record


@contextmanager
def _locked(models_folder: Path, name: str) -> Iterator[None]:
    """Hold the name's lock; the system releases it when the process dies."""
    models_folder.mkdir(parents=True, exist_ok=True)
    with (models_folder / f".{_file_name(name)}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _record_path(models_folder: Path, name: str) -> Path:
    return models_folder / f"{_file_name(name)}{_SUFFIX}"


def _file_name(name: str) -> str:
    return quote(name, safe="")  # a name may hold slashes
