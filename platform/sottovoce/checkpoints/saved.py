"""The manifest of a checkpoint: it lists the files, and writing it, last of all, commits the checkpoint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import Field, ValidationError, field_validator

from sottovoce.errors import CheckpointError
from sottovoce.schema import Record

FORMAT_VERSION = 1
MIN_KEPT = 2
"""Checkpoints that are kept whatever the settings say: if the newest is damaged, there is an older one."""


class FileDigest(Record):
    """The expected size and hash of a file."""

    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


class Saved(Record):
    """One checkpoint as its manifest describes it."""

    name: str
    """The checkpoint's folder below the store's root."""
    sequence: int
    """Increases with each checkpoint of a store: the highest is the newest."""
    step: int
    wer: float | None = None
    """The rate that chooses, a fraction: WER, or CER for languages without spaces, in spite of the name, which files
    keep; None for a checkpoint between evaluations."""
    files: Mapping[str, FileDigest] = Field(min_length=1)
    """Digests by path below the folder."""

    @field_validator("files")
    @classmethod
    def _check_paths(cls, files: Mapping[str, FileDigest]) -> Mapping[str, FileDigest]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ValueError(f"{name!r} is not a path below the checkpoint's folder")
        return files


def saved_to_manifest(saved: Saved) -> bytes:
    """Serialize a manifest, with the digest of its own content."""
    content = saved.model_dump(mode="json")
    document = {"format_version": FORMAT_VERSION, "sha256": _digest_content(content), "checkpoint": content}
    return (json.dumps(document, indent=1) + "\n").encode()


def manifest_to_saved(manifest: bytes, *, location: str) -> Saved:
    """Read a manifest.

    Args:
        manifest: its bytes.
        location: its path or URI, for the error message.

    Raises:
        CheckpointError: it is damaged, or a release with another format wrote it.
    """
    try:
        document = json.loads(manifest)
        version, content = document["format_version"], document["checkpoint"]
        is_whole = document["sha256"] == _digest_content(content)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(location, f"it is not a manifest: {error!r}") from error
    if not is_whole:
        raise CheckpointError(location, "its content does not match its sha256")
    if version != FORMAT_VERSION:
        raise CheckpointError(location, f"it has format version {version!r}, and this release reads {FORMAT_VERSION}")
    try:
        return Saved.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(location, f"it does not describe a checkpoint: {error}") from error


def choose_kept(checkpoints: Sequence[Saved], *, keep_best: int) -> tuple[Saved, ...]:
    """Choose the checkpoints to keep: the best by error rate and the newest, and at least ``MIN_KEPT``.

    Args:
        checkpoints: all committed ones.
        keep_best: how many of those with the lowest error rate to keep.
    """
    newest = by_age(checkpoints)
    kept = {saved.name: saved for saved in (*newest[:1], *by_wer(checkpoints)[:keep_best])}
    for saved in newest:
        if len(kept) < MIN_KEPT:
            kept[saved.name] = saved
    return tuple(kept.values())


def by_age(checkpoints: Sequence[Saved]) -> list[Saved]:
    """Sort checkpoints, newest first."""
    return sorted(checkpoints, key=lambda saved: (saved.sequence, saved.step, saved.name), reverse=True)


def by_wer(checkpoints: Sequence[Saved]) -> list[Saved]:
    """Sort the checkpoints that were scored by their error rate, lowest first; ties go to the earlier step."""
    scored = [(saved.wer, saved.step, -saved.sequence, saved) for saved in checkpoints if saved.wer is not None]
    return [saved for *_, saved in sorted(scored, key=lambda one: one[:3])]


def _digest_content(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
