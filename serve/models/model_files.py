"""Find the variants in a model's files, the refused ones among them, and a digest of the files."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sottovoce.errors import CheckpointError, ExportGateError
from sottovoce.model.variants import (
    FORMATS,
    TORCH,
    ServedVariant,
    VariantRecord,
    export_formats,
    fastest_variant,
    find_folder,
    read_variant_record,
)

_WEIGHTS = "*.safetensors"
_LOOKED_FOR = (
    "a checkpoint has config.json and *.safetensors, an adapter adapter_config.json, an export a folder such as int8"
)
_ADAPTER_FILE = "adapter_config.json"  # as in model/adapter.py, which needs torch: a gateway does without


@dataclass(frozen=True)
class FoundVariants:
    """The variants in a model's folders."""

    folders: dict[ServedVariant, str] = field(default_factory=dict)
    """Folder or Hub id of each variant that may be served."""
    refused: dict[ServedVariant, VariantRecord | None] = field(default_factory=dict)
    """Record of each refused variant; None for one that was never scored."""
    records: dict[ServedVariant, VariantRecord] = field(default_factory=dict)
    """Record of each exported variant that may be served."""

    def default(self, wanted: ServedVariant | None) -> ServedVariant | None:
        """Return the variant of the bare name: the wanted one, else the fastest servable one; None if there is none.

        A variant that was refused is returned if it is wanted or the only one, so that requests receive the reason.
        """
        fastest = fastest_variant(self.records)
        if wanted is None and fastest is not None:
            return fastest
        known = (wanted,) if wanted is not None else tuple(FORMATS)
        return next((variant for where in (self.folders, self.refused) for variant in known if variant in where), None)


def find_variants(checkpoint: str | None, export: str | None) -> FoundVariants:
    """Find the variants in a model's folders.

    Args:
        checkpoint: checkpoint or adapter folder, or Hub id; a path that is no folder is taken for a Hub id.
        export: export folder, or one variant's folder.

    Raises:
        CheckpointError: a variant whose record cannot be read.
    """
    found = FoundVariants()
    if checkpoint is not None and (holds_checkpoint(Path(checkpoint)) or is_hub_id(checkpoint)):
        found.folders[TORCH] = checkpoint
    for variant in export_formats() if export is not None else ():
        folder = None if export is None else find_folder(Path(export), variant)
        if folder is None:
            continue
        record = read_variant_record(folder)  # in a folder without a variant's files it would be the training's
        if record is not None and record.is_servable:
            found.folders[variant] = str(folder)
            found.records[variant] = record
        else:
            found.refused[variant] = record
    return found


def holds_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds model weights or an adapter."""
    if not folder.is_dir():
        return False
    return (folder / _ADAPTER_FILE).is_file() or ((folder / "config.json").is_file() and any(folder.glob(_WEIGHTS)))


def is_hub_id(source: str) -> bool:
    """Return whether a text is a Hub id or the embedded model's name: one slash at most, and not an existing folder."""
    return (
        not Path(source).is_absolute()
        and not source.startswith(".")
        and source.count("/") <= 1
        and (not Path(source).exists())
    )


def refusal(
    variant: ServedVariant, record: VariantRecord | None, folder: str | Path
) -> ExportGateError | CheckpointError:
    """Return why a variant is not served: the gate refused it, or an interrupted export left it unscored."""
    if record is None:
        remedy = "run jobs.export_model again, which loads each variant back and scores it"
        return CheckpointError(folder, f"its variant {variant} was never scored; {remedy}")
    return ExportGateError(variant, record.wer, record.reference_wer, record.max_wer_rise, folder)


def missing_variant(source: str, wanted: ServedVariant | None) -> CheckpointError:
    """Return the error of a folder without the wanted variant, or without any model; it names what is there instead."""
    folder = Path(source)
    if not folder.is_dir():
        what = "a checkpoint or export folder" if wanted in (None, TORCH) else f"an export folder with {wanted}"
        return CheckpointError(source, f"there is no such folder; name {what}")
    here = _variants_in(folder)
    if here:
        return CheckpointError(source, f"it holds no {wanted}, only {here}; name one of these as the variant")
    inside = [f"{child.name} ({found})" for child in sorted(folder.glob("[!.]*/")) if (found := _variants_in(child))]
    if inside:
        return CheckpointError(source, f"it holds no model itself; name one of its folders {', '.join(inside)}")
    return CheckpointError(source, f"it holds no {wanted or 'model that could be served'}: {_LOOKED_FOR}")


def _variants_in(folder: Path) -> str:
    """Return the names of a folder's variants, separated by commas; empty if it holds none or cannot be read."""
    try:
        found = find_variants(str(folder), str(folder))
    except CheckpointError:
        return ""
    return ", ".join(name for name in FORMATS if name in found.folders or name in found.refused)


def digest_files(folder: str, *further: object) -> str:
    """Return a digest of names, sizes and times of a folder's files, and of ``further``; a Hub id has no files.

    The files' bytes are not read: this runs twice a second for each model.
    """
    digest = hashlib.sha256(repr((folder, *further)).encode())
    for path, status in _files(Path(folder)):
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def newest_file(folder: str) -> int:
    """Return the Unix time at which the newest file of a folder was written; 0 for a Hub id."""
    return max((int(status.st_mtime) for _, status in _files(Path(folder))), default=0)


def _files(folder: Path) -> Iterable[tuple[Path, os.stat_result]]:
    """Return the files a recognizer may read: its own, and those in the subfolders of model formats."""
    subfolders = {str(Path(file).parent) for row in FORMATS.values() for file in row.files} - {"."}
    inner = (path for name in subfolders for path in folder.glob(f"{name}/*"))
    for path in sorted((*folder.glob("*"), *inner)):
        if path.is_file():
            yield path.relative_to(folder), path.stat()
