"""Promote a model under a name, or roll back to the previous one, while the service runs.

A promotion copies the model's files, tries every file of the copy, and then makes it visible in one step, which the
running service sees by itself. What was copied changes with the next promotion and with nothing else. Not copied are
checkpoints on the Hub; the base of an adapter, whose weights are compared at each load with the SHA-256 that adapters
of ours record; and the assistant, which changes the speed and not the text.
"""

import json
import logging
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from serve.models.loading import ModelLoader
from serve.models.model_files import digest_files, find_variants, holds_checkpoint, missing_variant, refusal
from serve.models.model_plan import ModelPlan
from serve.models.registry import (
    CHECKPOINT_FOLDER,
    EXPORT_FOLDER,
    ModelRecord,
    Release,
    change_record,
    read_record,
    release_folder,
)
from serve.models.storage import explained_writes
from serve.settings import ModelFiles, ServeConfig, ServedFiles, checked_name
from sottovoce.atomic_write import sync_folder
from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.variants import TORCH
from sottovoce.recognize.onnx_trial import try_graphs

_CHECKPOINT_FILES = ("*.json", "*.txt", "*.safetensors", "*.md")  # of a training run's folder neither state nor logs
_DRAFT = re.compile(r"\.\d+-\d+")  # process and time
_ABANDONED_S = 86_400.0  # s; no promotion copies for a day

logger = logging.getLogger(__name__)


class Promotion(ModelFiles):
    """Which model is promoted under which name."""

    name: str = ServeConfig().model_id
    """Model id in requests."""
    rollback: bool = False
    """Roll back to the previous release; name no files then."""
    models_folder: Path = Path(ServeConfig().models_folder)
    """The service's models_folder."""
    keep: int = Field(default=5, ge=2)
    """Releases to keep; older ones are deleted and cannot be rolled back to."""

    @model_validator(mode="after")
    def _check_action(self) -> Self:
        checked_name(self.name)
        if self.name in ServeConfig().aliases:
            raise ValueError(
                f"name {self.name!r} is an alias: requests for it mean the service's default model, which is promoted "
                f"as {ServeConfig().model_id!r} where its settings do not say otherwise"
            )
        if self.rollback != (self.checkpoint is None and self.export is None):
            raise ValueError("name a checkpoint, an export, or both; or ask for rollback and name neither")
        return self


def change_model(promotion: Promotion) -> ModelRecord:
    """Promote or roll back. Running services follow within a second.

    Raises:
        ExportGateError: the export gate refused the variant; what is served stays as it is.
        CheckpointError: files that are missing or damaged, that were never scored, or that do not decode.
        ConfigError: nothing to roll back to, or the models folder cannot be written or is full.
    """
    with explained_writes(promotion.models_folder):
        record = roll_back(promotion) if promotion.rollback else promote(promotion)
    release = record.release(record.current)
    assert release is not None, "a record keeps its current release"
    logger.info("%s is now version %d, variant %s", record.name, release.version, release.variant)
    return record


def promote(promotion: Promotion) -> ModelRecord:
    """Copy a model's files, decode with them once, and make them the current release. Raises as ``change_model``."""
    files = _check_files(promotion)
    folder = promotion.models_folder
    draft = release_folder(folder, promotion.name, 0).with_name(f".{os.getpid()}-{time.time_ns()}")
    try:
        draft.mkdir(parents=True)
        _try_out(_copy(files, draft))
        record = change_record(folder, promotion.name, partial(_append, promotion=promotion, files=files, draft=draft))
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _remove_old(draft.parent, record)
    return record


def roll_back(promotion: Promotion) -> ModelRecord:
    """Make the previous release current again.

    Raises:
        ConfigError: nothing was promoted under the name, or nothing before the current release is kept.
    """
    folder, name = promotion.models_folder, promotion.name
    if read_record(folder, name) is None:
        raise ConfigError(
            f"nothing was promoted under {name!r} in {folder}; name the service's own name and models_folder"
        )
    return change_record(folder, name, _step_back)


def _check_files(promotion: Promotion) -> ServedFiles:
    """Choose the variant and make paths absolute."""
    files = ServedFiles(**promotion.model_dump(include=set(ModelFiles.model_fields))).resolved()
    where = files.export or files.checkpoint or ""
    found = find_variants(files.checkpoint, files.export)
    variant = found.default(files.variant)
    if variant is None:
        raise missing_variant(where, files.variant)
    if variant in found.refused:
        raise refusal(variant, found.refused[variant], where)
    return files.model_copy(update={"variant": variant})


def _copy(files: ServedFiles, draft: Path) -> ServedFiles:
    """Copy the files to serve; a Hub model stays on the Hub."""
    copied = files
    if files.checkpoint is not None and holds_checkpoint(Path(files.checkpoint)):
        target = draft / CHECKPOINT_FOLDER
        target.mkdir()
        for pattern in _CHECKPOINT_FILES:
            for path in Path(files.checkpoint).glob(pattern):
                shutil.copy2(path, target)
        copied = copied.model_copy(update={"checkpoint": str(target)})
    if files.export is not None:
        target = draft / EXPORT_FOLDER
        for variant, folder in find_variants(None, files.export).folders.items():
            shutil.copytree(folder, target / variant)
        copied = copied.model_copy(update={"export": str(target)})
    return copied


def _try_out(files: ServedFiles) -> None:
    """Load every variant of the copy, and decode with it once: requests may name each of them.

    A checkpoint on the Hub is tried only as the variant of the bare name.

    Raises:
        CheckpointError: a file that cannot be read, or a variant that fails while it decodes.
    """
    loader = ModelLoader(num_threads=1)
    for variant, folder in find_variants(files.checkpoint, files.export).folders.items():
        if variant != files.variant and not Path(folder).is_dir():
            continue
        _check_json(Path(folder))
        if variant != TORCH:
            try_graphs(Path(folder), variant)
        plan = ModelPlan(
            key="trial", folder=folder, variant=variant, base=files.base, assistant=files.assistant, created=0
        )
        loader.unload(loader.load(plan, loader.measure(plan)))
        loader.free_memory()
        logger.info("variant %s decodes", variant)


def _check_json(folder: Path) -> None:
    """Check that each JSON file in a folder can be read; a Hub id has none.

    Raises:
        CheckpointError: one that cannot.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            raise CheckpointError(path, f"it is not JSON ({error}); copy it again, or export again") from error


def _append(record: ModelRecord | None, *, promotion: Promotion, files: ServedFiles, draft: Path) -> ModelRecord:
    """Rename the draft to its release folder and make it the newest release. The caller holds the name's lock."""
    assert files.variant is not None, "the variant was chosen with the files"
    version = max((_version(folder) for folder in draft.parent.iterdir()), default=0) + 1
    folders = sorted(draft.rglob("*/"))
    release = Release(
        version=version,
        promoted=int(time.time()),
        digest=digest_files(str(draft), time.time_ns(), *(digest_files(str(folder)) for folder in folders)),
        replaces=None if record is None else record.current,
        **files.model_dump(),
    )
    draft.replace(release_folder(promotion.models_folder, promotion.name, version))
    sync_folder(draft.parent)
    before = () if record is None else record.releases
    newest = {one.version for one in before[1 - promotion.keep :]} | {release.replaces}
    kept = tuple(one for one in before if one.version in newest)
    return ModelRecord(name=promotion.name, current=version, releases=(*kept, release))


def _step_back(record: ModelRecord | None) -> ModelRecord:
    assert record is not None, "a record is never removed"
    current = record.release(record.current)
    before = None if current is None or current.replaces is None else record.release(current.replaces)
    if before is None:
        raise ConfigError(f"{record.name!r} was nothing before version {record.current} that is kept; promote it again")
    return record.model_copy(update={"current": before.version})


def _remove_old(releases: Path, record: ModelRecord) -> None:
    """Delete the files of releases that are no longer in the record. Newer ones belong to other promotions.

    Old drafts are deleted too: the process that wrote them was killed.
    """
    for folder in releases.iterdir():
        is_old = 0 < _version(folder) < record.current and record.release(_version(folder)) is None
        if is_old or (_DRAFT.fullmatch(folder.name) and _age_s(folder) > _ABANDONED_S):
            shutil.rmtree(folder, ignore_errors=True)


def _age_s(folder: Path) -> float:
    """Return the seconds since a folder was last written to; 0 for one that has been moved meanwhile."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _version(folder: Path) -> int:
    """Read a release's number from its folder's name; 0 for a draft."""
    return int(folder.name) if folder.name.isdigit() else 0
