"""Which variants a model's files hold, which of them may not be served, and what tells other files from these."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from serve.settings import Variant
from sottovoce.errors import CheckpointError, ExportGateError
from sottovoce.model.variants import VARIANTS, VariantRecord, onnx_path, read_variant_record

TORCH: Variant = "torch"
_PREFERRED: tuple[Variant, ...] = ("int8", "fp32", "torch")
_WEIGHTS = "*.safetensors"
_ADAPTER_FILE = "adapter_config.json"  # as in model/adapter.py, which needs torch: a gateway does without


@dataclass(frozen=True)
class FoundVariants:
    """What a model's folders hold."""

    folders: dict[Variant, str] = field(default_factory=dict)
    """Folder or Hub id of each variant that may be served."""
    refused: dict[Variant, VariantRecord | None] = field(default_factory=dict)
    """What the gate measured on those that may not; None for one that was never scored."""

    def default(self, wanted: Variant | None) -> Variant | None:
        """Choose what the bare name stands for: the wanted variant, else the first that may be served; None for none.

        A wanted variant that was refused stays the answer, so that requests hear why.
        """
        known = (wanted,) if wanted is not None else _PREFERRED
        return next((variant for where in (self.folders, self.refused) for variant in known if variant in where), None)


def find_variants(checkpoint: str | None, export: str | None) -> FoundVariants:
    """Look into a model's folders.

    Args:
        checkpoint: checkpoint or adapter folder, or Hub id; a path that is no folder is taken for a Hub id.
        export: export folder, or one variant's folder.

    Raises:
        CheckpointError: a variant whose record cannot be read.
    """
    found = FoundVariants()
    if checkpoint is not None and (holds_checkpoint(Path(checkpoint)) or is_hub_id(checkpoint)):
        found.folders[TORCH] = checkpoint
    for variant in VARIANTS if export is not None else ():
        assert export is not None
        for folder in (Path(export) / variant, Path(export)):
            if not onnx_path(folder, "encoder_model", variant).is_file():
                continue
            record = read_variant_record(folder)  # of a folder without graphs it would be the training's
            if record is not None and record.is_servable:
                found.folders[variant] = str(folder)
            else:
                found.refused[variant] = record
            break
    return found


def holds_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a model's weights, or an adapter."""
    if not folder.is_dir():
        return False
    return (folder / _ADAPTER_FILE).is_file() or ((folder / "config.json").is_file() and any(folder.glob(_WEIGHTS)))


def is_hub_id(source: str) -> bool:
    """Tell a Hub id, or the name of the embedded model, from a path: it has one slash at most and no folder."""
    return (
        not Path(source).is_absolute()
        and not source.startswith(".")
        and source.count("/") <= 1
        and (not Path(source).exists())
    )


def refusal(variant: Variant, record: VariantRecord | None, folder: str | Path) -> ExportGateError | CheckpointError:
    """Say why a variant is not served: the gate refused it, with its rates; or an export that broke off left it."""
    if record is None:
        remedy = "run jobs.export_model again, which loads each variant back and scores it"
        return CheckpointError(folder, f"its variant {variant} was never scored; {remedy}")
    return ExportGateError(variant, record.wer, record.reference_wer, record.max_wer_rise, folder)


def digest_files(folder: str, *further: object) -> str:
    """Digest names, sizes and times of a folder's files, and whatever else decides what is loaded; a Hub id has none.

    Their bytes are not read: it is done twice a second for each model.
    """
    digest = hashlib.sha256(repr((folder, *further)).encode())
    for path, status in _files(Path(folder)):
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def newest_file(folder: str) -> int:
    """Give the Unix time at which the newest file of a folder was written; 0 for a Hub id."""
    return max((int(status.st_mtime) for _, status in _files(Path(folder))), default=0)


def _files(folder: Path) -> Iterable[tuple[Path, os.stat_result]]:
    """Give the files a recognizer may read: the folder's own, and its graphs."""
    for path in sorted((*folder.glob("*"), *folder.glob("onnx/*"))):
        if path.is_file():
            yield path.relative_to(folder), path.stat()
