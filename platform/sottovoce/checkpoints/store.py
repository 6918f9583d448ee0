"""A store of trusted checkpoints: each is written as a whole or not at all, and verified before it is used.

step-00000200-1f3ac2b0/               one checkpoint
    manifest.json                     step, WER, and size and sha256 of every other file; written last
    ...
.partial-step-00000300-9d0e77c1/      an unfinished checkpoint

A checkpoint exists when its manifest exists. On a disk with atomic renames, all files are written and synced in a
temporary folder, the folder is renamed, and then the manifest is written, synced and renamed into it. Object stores
cannot rename folders: there, only the manifest, written after everything else, decides. Nothing is removed before a
newer checkpoint has been committed and read back, and a checkpoint that is removed loses its manifest first.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from sottovoce.audio.remote import client_errors, redact
from sottovoce.checkpoints.disk import Disk, Entry, open_disk
from sottovoce.checkpoints.disk_files import (
    check_file,
    check_size,
    name_read_fault,
    name_write_fault,
    read_file,
    remove_tree,
    temporary_folder,
    write_file,
)
from sottovoce.checkpoints.saved import (
    FileDigest,
    Saved,
    by_age,
    by_wer,
    choose_kept,
    manifest_to_saved,
    saved_to_manifest,
)
from sottovoce.errors import CheckpointError, NoGoodCheckpointError

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
Files: TypeAlias = Mapping[str, Iterable[bytes | memoryview]]
"""Content in parts, by path below a checkpoint's folder."""
_Order: TypeAlias = Callable[[Sequence[Saved]], list[Saved]]
_PARTIAL = ".partial-"
_NAME = "step-"


@dataclass(frozen=True)
class Opened:
    """A verified checkpoint."""

    saved: Saved
    folder: Path
    """Its files on this machine."""


@dataclass(frozen=True)
class _Survey:
    """The content of a store, according to the manifests."""

    committed: list[Saved] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    """Reasons by folder."""
    unfinished: list[str] = field(default_factory=list)


class CheckpointStore:
    """The checkpoints of one run.

    One process writes at a time; any number may read.

    Args:
        root: a folder for this run alone, as a path or any URI that fsspec can write to; created when first needed.
        disk: the storage behind ``root``; None to find it with fsspec.

    Raises:
        ConfigError: a protocol that is unknown, or whose package is not installed.
    """

    def __init__(self, root: str, *, disk: Disk | None = None) -> None:
        self.location = redact(root)
        """Path or URI of the store, without secrets."""
        self._disk = open_disk(root) if disk is None else disk
        self._refused: set[str] = set()  # damaged: never used, and removed after the next commit
        self._is_swept = False

    def write(self, files: Files, *, step: int, wer: float | None, keep_best: int) -> Saved:
        """Add a checkpoint, then remove those that need not be kept.

        Args:
            files: its content.
            step: the run's step.
            wer: the rate that chooses, a fraction; see ``Saved``. None if it was not measured.
            keep_best: how many checkpoints with the lowest such rate to keep, besides the newest.

        Raises:
            CheckpointWriteError: writing failed; all earlier checkpoints are still there.
        """
        name = f"{_NAME}{step:08d}-{uuid.uuid4().hex[:8]}"
        folder = _PARTIAL + name if self._disk.renames_folders else name
        try:
            self._sweep()
            before = self._survey().committed
            digests = self._write_files(folder, files)
            if folder != name:
                self._disk.rename(folder, name)
                folder = name
                self._disk.sync_folder("")
            sequence = 1 + max((saved.sequence for saved in before), default=0)
            saved = Saved(name=name, sequence=sequence, step=step, wer=wer, files=digests)
            self._read_back(saved)
            self._commit(saved)
        except client_errors() as error:
            self._discard(folder)
            raise name_write_fault(error, f"{self.location}/{name}") from error
        self._prune([saved, *before], keep_best=keep_best)
        return saved

    def committed(self) -> tuple[Saved, ...]:
        """List the committed checkpoints, newest first, from their manifests; files are not verified.

        Raises:
            StorageError: the storage does not answer.
        """
        return tuple(by_age(self._survey().committed))

    @contextmanager
    def latest(self, *, under: str = "") -> Iterator[Opened | None]:
        """Yield the newest intact checkpoint, or None if there never was one.

        The log names each damaged one that is skipped.

        Args:
            under: the file or folder of the checkpoint that is needed; everything if empty.

        Raises:
            NoGoodCheckpointError: there are checkpoints, but all are damaged.
            StorageError: the storage does not answer, or a local copy does not fit.
        """
        with self._first_good(by_age, under) as opened:
            yield opened

    @contextmanager
    def best(self, *, under: str = "") -> Iterator[Opened | None]:
        """Yield the intact checkpoint with the lowest error rate; otherwise as ``latest``."""
        with self._first_good(by_wer, under) as opened:
            yield opened

    @contextmanager
    def opened(self, name: str, *, under: str = "") -> Iterator[Opened]:
        """Yield the checkpoint with this name.

        Raises:
            CheckpointError: it is damaged or missing.
            StorageError: the storage does not answer.
        """
        with ExitStack() as stack:
            yield self._fetch(self._read_manifest(name), under, stack)

    def clear(self) -> None:
        """Remove all checkpoints; the log names those that cannot be removed."""
        survey = self._survey()
        for name in (*survey.unfinished, *survey.damaged, *(saved.name for saved in survey.committed)):
            self._discard(name)

    def _write_files(self, folder: str, files: Files) -> dict[str, FileDigest]:
        """Write and sync every file, then sync the folders."""
        parents = sorted(
            {str(parent) for path in files for parent in PurePosixPath(folder, path).parents if parent.name}
        )
        for parent in parents:
            self._disk.make_folder(parent)
        digests = {path: write_file(self._disk, f"{folder}/{path}", content) for path, content in files.items()}
        for parent in reversed(parents):
            self._disk.sync_folder(parent)
        return digests

    def _read_back(self, saved: Saved) -> None:
        """Verify the written files on a local disk; elsewhere only their sizes, since reading may cost money."""
        for path, digest in saved.files.items():
            if self._disk.folder("") is not None:
                check_file(self._disk, f"{saved.name}/{path}", digest, location=self.location)
            else:
                size = self._disk.size(f"{saved.name}/{path}")
                check_size(size, digest, name=f"{self.location}/{saved.name}/{path}")

    def _commit(self, saved: Saved) -> None:
        """Write the manifest; renaming it commits the checkpoint."""
        partial = f"{saved.name}/{_PARTIAL}{MANIFEST_FILE}"
        digest = write_file(self._disk, partial, [saved_to_manifest(saved)])
        check_file(self._disk, partial, digest, location=self.location)
        self._disk.rename(partial, f"{saved.name}/{MANIFEST_FILE}")
        self._disk.sync_folder(saved.name)
        self._read_manifest(saved.name)  # raises if the disk only claimed to have written it

    def _survey(self) -> _Survey:
        """Read all manifests."""
        survey = _Survey()
        for entry in self._entries(""):
            if entry.name.startswith(_PARTIAL):
                survey.unfinished.append(entry.name)
            elif entry.is_folder and entry.name.startswith(_NAME):
                self._survey_one(entry.name, survey)
        return survey

    def _survey_one(self, name: str, survey: _Survey) -> None:
        if not self._has_manifest(name):
            survey.unfinished.append(name)
            return
        try:
            survey.committed.append(self._read_manifest(name))
        except CheckpointError as error:
            survey.damaged[name] = str(error)

    def _has_manifest(self, name: str) -> bool:
        return any(entry.name == MANIFEST_FILE for entry in self._entries(name))

    def _entries(self, path: str) -> list[Entry]:
        try:
            return self._disk.entries(path)
        except client_errors() as error:
            raise name_read_fault(error, f"{self.location}/{path}") from error

    def _read_manifest(self, name: str) -> Saved:
        path = f"{name}/{MANIFEST_FILE}"
        manifest = read_file(self._disk, path, location=self.location)
        saved = manifest_to_saved(manifest, location=f"{self.location}/{path}")
        if saved.name != name:
            raise CheckpointError(f"{self.location}/{path}", f"it belongs to {saved.name}")
        return saved

    @contextmanager
    def _first_good(self, order: _Order, under: str) -> Iterator[Opened | None]:
        """Yield the first intact checkpoint in this order."""
        survey = self._survey()
        for name in survey.unfinished:
            logger.warning("%s/%s was never finished: it has no manifest and is ignored", self.location, name)
        reasons = list(survey.damaged.values())
        for name, reason in survey.damaged.items():
            self._refuse(name, reason)
        for saved in order(survey.committed):
            with ExitStack() as stack:
                try:
                    opened = self._fetch(saved, under, stack)
                except CheckpointError as error:
                    self._refuse(saved.name, str(error))
                    reasons.append(str(error))
                    continue
                yield opened
                return
        if reasons:
            raise NoGoodCheckpointError(self.location, "; ".join(reasons))
        yield None

    def _refuse(self, name: str, reason: str) -> None:
        self._refused.add(name)
        logger.warning("refused checkpoint %s: %s", name, reason)

    def _fetch(self, saved: Saved, under: str, stack: ExitStack) -> Opened:
        """Verify the needed files of a checkpoint, and copy them to this machine if they are remote."""
        files = {path: digest for path, digest in saved.files.items() if _is_under(path, under)}
        here = self._disk.folder(saved.name)
        folder = here or stack.enter_context(temporary_folder())
        for path, digest in files.items():
            copy = None if here else folder / path
            check_file(self._disk, f"{saved.name}/{path}", digest, location=self.location, copy=copy)
        return Opened(saved, folder)

    def _prune(self, checkpoints: Sequence[Saved], *, keep_best: int) -> None:
        """Remove checkpoints that need not be kept; the log names those that cannot be removed."""
        whole = [saved for saved in checkpoints if saved.name not in self._refused]
        kept = {saved.name for saved in choose_kept(whole, keep_best=keep_best)}
        for name in sorted(({saved.name for saved in checkpoints} | self._refused) - kept):
            if self._discard(name):
                self._refused.discard(name)

    def _sweep(self) -> None:
        """Before the first checkpoint is added, remove what other processes left unfinished."""
        if not self._is_swept:
            for name in self._survey().unfinished:
                self._discard(name)
        self._is_swept = True

    def _discard(self, name: str) -> bool:
        """Remove a folder, manifest first so that it never looks damaged; return whether it is gone."""
        try:
            if self._has_manifest(name):
                self._disk.remove(f"{name}/{MANIFEST_FILE}")
                self._disk.sync_folder(name)
            remove_tree(self._disk, name)
        except client_errors() as error:
            logger.warning("%s/%s is not needed and cannot be removed: %s", self.location, name, error)
            return False
        return True


def _is_under(path: str, under: str) -> bool:
    return not under or path == under or path.startswith(f"{under}/")
