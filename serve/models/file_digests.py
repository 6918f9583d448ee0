"""The files that a model is read from, each with its SHA-256, so that anyone can check what a service serves."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sottovoce.model.variants import FORMATS, TORCH

_SHOWN_DIGITS = 12  # of 64: enough to tell files apart in a log line
_CONFIGS = ("config.json", "generation_config.json", "tokenizer.json", "adapter_config.json")
_WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class FileDigest:
    """One file of a model."""

    name: str
    """Relative to the model's folder."""
    num_bytes: int
    sha256: str
    """In hexadecimal, as ``sha256sum`` prints it."""


def digest_contents(folder: Path, variant: str) -> tuple[FileDigest, ...]:
    """Read the files that a recognizer reads, and compute their SHA-256; weights first, in the order of their names.

    Args:
        folder: checkpoint or adapter folder for ``torch``, else the variant's folder.
        variant: torch, or the name of an export format.
    """
    patterns = (_WEIGHTS,) if variant == TORCH else tuple(f"{name}*" for name in FORMATS[variant].files)
    weights = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    configs = [path for name in _CONFIGS if (path := folder / name).is_file()]
    return tuple(_digest(path, folder) for path in (*sorted(weights), *configs))


def describe_files(files: Iterable[FileDigest]) -> str:
    """Return the files of weights with the first digits of their SHA-256, in one line."""
    weights = [file for file in files if file.name not in _CONFIGS]
    return ", ".join(f"{file.name} sha256 {file.sha256[:_SHOWN_DIGITS]}" for file in weights)


def _digest(path: Path, folder: Path) -> FileDigest:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(str(path.relative_to(folder)), file.tell(), digest)
