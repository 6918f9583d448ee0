"""Load and save Whisper checkpoints: a folder of Hugging Face files, or a Hub id."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperTokenizerFast

from sottovoce.errors import CheckpointError
from sottovoce.model.context import AudioContext, TrimmedWhisper

# Keys of config.json that make transformers 4.57 fetch or run code: CVE-2026-4372, and remote code.
_REFUSED_KEYS = ("auto_map",)
_REFUSED_PREFIX = "_attn_implementation"
MICRO = "micro"  # the name of the base model the package brings along
_MICRO_FOLDER = Path(__file__).resolve().parents[1] / "demo" / "assets" / "micro"
_HUB_FILES = ("*.json", "*.txt", "*.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A Whisper with all that is needed to train, export or serve it."""

    model: TrimmedWhisper
    tokenizer: WhisperTokenizerFast
    source: str
    """The folder or Hub id it was loaded from."""

    @property
    def context(self) -> AudioContext:
        """The audio contexts the weights were trained on."""
        return self.model.audio_context

    @property
    def num_mel_bins(self) -> int:
        """80, or 128 for large-v3."""
        return int(self.model.config.num_mel_bins)

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the generation config lists."""
        generation: Any = self.model.generation_config  # transformers sets Whisper's own fields at run time
        return tuple(token.strip("<|>") for token in generation.lang_to_id)


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Load a checkpoint in float32, from a folder or the Hub.

    Only safetensors weights are read, and keys of config.json that can run code are dropped.

    Raises:
        CheckpointError: no such folder or Hub id, a missing or damaged file, or weights that do not fit the config.
    """
    folder = resolve_folder(source)
    try:
        model = TrimmedWhisper.from_pretrained(
            folder, config=read_model_config(folder), use_safetensors=True, dtype=torch.float32, local_files_only=True
        )
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:  # TypeError: no vocabulary
        raise CheckpointError(source, f"{error}") from error
    return Checkpoint(model=model.eval(), tokenizer=tokenizer, source=str(source))


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write every Hugging Face file of a checkpoint: weights, configs, tokenizer, feature extractor."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.model.save_pretrained(folder, safe_serialization=True)
    checkpoint.tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=checkpoint.num_mel_bins).save_pretrained(folder)


def resolve_folder(source: str | Path) -> Path:
    """Find a checkpoint's folder: a folder, ``micro``, or a Hub id, which is fetched (or taken from its cache).

    Raises:
        CheckpointError: neither a folder nor a Hub id that can be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if source == MICRO:
        return _MICRO_FOLDER
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(source, f"no such folder, and the Hub does not give it: {error}") from error


def read_model_config(folder: Path) -> WhisperConfig:
    """Read config.json without the keys that can run code.

    Raises:
        CheckpointError: no config.json, no JSON, or another architecture than Whisper.
    """
    path = folder / "config.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(folder, f"config.json: {error}") from error
    if values.get("model_type") != "whisper":
        raise CheckpointError(folder, f"model_type is {values.get('model_type')!r}, not 'whisper'")
    safe = {
        key: value for key, value in values.items() if key not in _REFUSED_KEYS and not key.startswith(_REFUSED_PREFIX)
    }
    return WhisperConfig.from_dict(safe)
