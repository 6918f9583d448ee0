"""Where a model's files are: a folder, the embedded micro, or the Hub; and its config, without what could run code."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from sottovoce.assets import MICRO_FOLDER
from sottovoce.errors import CheckpointError

# Keys of config.json that make transformers 4.57 fetch or run code: CVE-2026-4372, and remote code.
_REFUSED_KEYS = ("auto_map",)
_REFUSED_PREFIX = "_attn_implementation"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
MICRO = "micro"  # the name of the base model embedded in the package
_HUB_FILES = ("*.json", "*.txt", "*.safetensors", "README.md")  # the last one names the licence


def resolve_folder(source: str | Path, *, revision: str | None = None) -> Path:
    """Return a checkpoint's folder; download a Hub id unless it is in the Hub's cache.

    Args:
        source: a folder, ``micro``, or a Hub id.
        revision: a commit on the Hub; the newest when None. Folders have none.

    Raises:
        CheckpointError: neither a folder nor a Hub id that can be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if source == MICRO:
        return MICRO_FOLDER
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(_HUB_FILES)))
    except HFValidationError as error:
        raise CheckpointError(source, "no such folder, and not a valid Hub id") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(source, f"no such folder, and the Hub does not return it: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json without the keys that can run code.

    Raises:
        CheckpointError: no config.json, no JSON, or another architecture than Whisper.
    """
    values = _read_json(folder, "config.json")
    if values.get("model_type") != "whisper":
        raise CheckpointError(folder, f"model_type is {values.get('model_type')!r}, not 'whisper'")
    return {
        key: value for key, value in values.items() if key not in _REFUSED_KEYS and not key.startswith(_REFUSED_PREFIX)
    }


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Read generation_config.json.

    Raises:
        CheckpointError: there is none, or it is no JSON object.
    """
    return _read_json(
        folder, "generation_config.json", remedy="; copy that of its base model, which has the same tokenizer"
    )


def find_weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights: ``model.safetensors``, or the parts that its index names.

    Raises:
        CheckpointError: one of them is missing, or the index cannot be read.
    """
    index, names = folder / _INDEX, {_WEIGHTS}
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(folder, f"it lacks a {_INDEX} that can be read") from error
    files = [folder / name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise CheckpointError(folder, f"it lacks {file.name}{_pickled(folder)}")
    return files


def read_weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the shape of each of a model's weights from the headers of its files.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in find_weight_files(folder):
        try:
            with safe_open(path, framework="np") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(folder, f"{path.name}: {error}") from error
    return shapes


def _pickled(folder: Path) -> str:
    """Return what to say about weights in a format that can run code."""
    found = next(
        (name for name in ("pytorch_model.bin", "pytorch_model.bin.index.json") if (folder / name).is_file()), None
    )
    return "" if found is None else f"; {found} is not read, because a pickle can run code: save it as safetensors"


def _read_json(folder: Path, name: str, remedy: str = "") -> dict[str, Any]:
    try:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(folder, f"it lacks {name}{remedy}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(folder, f"{name}: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(folder, f"{name} is no JSON object")
    return values
