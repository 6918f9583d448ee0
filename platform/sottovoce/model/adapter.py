"""LoRA adapters: a few trained weights beside a frozen Whisper, stored in peft's files.

W' = W + alpha / rank * B @ A for each adapted matrix W (out, in), A (rank, in), B (out, rank); B starts at zero, so an
untrained adapter changes nothing. Source: Hu et al. 2021, through the peft library.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sottovoce.config import Config
from sottovoce.errors import CheckpointError
from sottovoce.model.context import TrimmedWhisper

if TYPE_CHECKING:  # peft takes seconds to import, and only adapters need it
    from peft import LoraConfig, PeftModel

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_DIGEST_KEY = "base_weights_sha256"  # in the metadata of the weights' file, which peft leaves alone
_NAME = "default"  # peft's name of a model's first adapter
# peft's AutoPeftModel builds this class around the adapter: stock Whisper, which works without Sottovoce.
_AUTO_MAPPING = {
    "base_model_class": "WhisperForConditionalGeneration",
    "parent_library": "transformers.models.whisper.modeling_whisper",
}

Target: TypeAlias = Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
Part: TypeAlias = Literal["encoder", "decoder", "both"]


class LoraSettings(Config):
    """Which matrices get an adapter, and how large it is."""

    rank: int = Field(default=16, ge=1)
    """Columns and rows of each adapter; the number of trained weights grows with it."""
    alpha: int = Field(default=32, ge=1)
    """The adapter's product is scaled by alpha / rank; twice the rank is usual."""
    targets: tuple[Target, ...] = Field(default=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"), min_length=1)
    """Matrices of each layer that get an adapter: attention's query, key, value and output, and the two of the
    feed-forward part. All of them learn better than attention alone (Dettmers et al. 2023, section 4)."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout of an adapter's input in training. Above 0, each adapter copies its input, which takes memory."""
    part: Part = "both"
    """The layers that get adapters: the encoder's, the decoder's or both."""
    token_rows: bool = False
    """Also train the embedding rows of the tokens in the training texts: adapters of matrices cannot teach a
    small model words that are rare in its training data."""


@dataclass(frozen=True)
class AdapterBase:
    """The model an adapter belongs to."""

    name: str
    """A folder, a Hub id, or micro."""
    revision: str | None
    """The Hub's commit; None for a folder."""
    weights_sha256: str | None
    """Digest of its weights; None if it was not recorded."""

    @classmethod
    def describe(cls, name: str, folder: Path) -> "AdapterBase":
        """Return the description of the base model in a folder, which may be in the Hub's cache."""
        revision = folder.name if folder.parent.name == "snapshots" else None  # the layout of the Hub's cache
        return cls(name, revision, _digest_weights(folder))

    def check(self, folder: Path) -> None:
        """Check that a folder holds exactly the weights the adapter was trained on.

        Raises:
            CheckpointError: it holds others, or some are missing.
        """
        if self.weights_sha256 is not None and _digest_weights(folder) != self.weights_sha256:
            missing = _find_missing_file(folder)
            reason = f"it lacks {missing}" if missing else "its weights are not those the adapter was trained on"
            raise CheckpointError(folder, reason)


class Adapter:
    """A LoRA adapter that is active in a Whisper model."""

    def __init__(self, peft_model: "PeftModel", base: AdapterBase) -> None:
        self._peft_model = peft_model
        self.base = base

    def state(self) -> dict[str, Tensor]:
        """Return the adapter's weights by peft's names, float32."""
        from peft import get_peft_model_state_dict  # here: see TYPE_CHECKING

        # False: left to itself, peft asks the Hub at each call whether the vocabulary was enlarged
        weights: dict[str, Tensor] = get_peft_model_state_dict(self._peft_model, save_embedding_layers=False)
        return weights

    def save(self, folder: Path) -> None:
        """Write peft's two files. They name the base and contain none of its weights."""
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"format": "pt"}
        if self.base.weights_sha256 is not None:
            metadata[_DIGEST_KEY] = self.base.weights_sha256
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.state().items()}
        save_file(tensors, folder / ADAPTER_WEIGHTS_FILE, metadata=metadata)
        config = self._peft_model.peft_config[_NAME]
        config.inference_mode = True  # in the file only, so that peft alone loads it for inference
        config.save_pretrained(str(folder), auto_mapping_dict=_AUTO_MAPPING)
        config.inference_mode = False

    def merge(self) -> TrimmedWhisper:
        """Add the adapter to the matrices of its Whisper, and return that Whisper, now without an adapter.

        Raises:
            ValueError: the adapter makes weights NaN or infinite.
        """
        merge_and_unload: Any = self._peft_model.merge_and_unload
        merged = merge_and_unload(safe_merge=True)
        assert isinstance(merged, TrimmedWhisper)
        return merged


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of a whole model."""
    return (folder / ADAPTER_CONFIG_FILE).is_file()


def add_adapter(
    whisper: TrimmedWhisper, settings: LoraSettings, *, base: AdapterBase, token_ids: Iterable[int] = (), seed: int
) -> Adapter:
    """Add an untrained adapter to a model, in place; only the adapter's weights are trainable afterwards.

    Args:
        whisper: the model; each adapted matrix is wrapped.
        settings: the adapted matrices, and the adapter's size.
        base: written into the adapter's files.
        token_ids: tokens whose embedding rows are trained if ``settings.token_rows``.
        seed: of the initial weights.
    """
    from peft import LoraConfig  # here: see TYPE_CHECKING

    config = LoraConfig(  # without task_type, for which peft hands forward() keywords Whisper does not know
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=_target_modules(settings),
        lora_dropout=settings.dropout,
        trainable_token_indices={"embed_tokens": sorted(set(token_ids))} if settings.token_rows else None,
        base_model_name_or_path=base.name,
        revision=base.revision,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _inject(whisper, config, base)


def restore_adapter(whisper: TrimmedWhisper, folder: Path, *, base: AdapterBase) -> Adapter:
    """Add a saved adapter to its base, in place; it can then be used, trained further, saved and merged.

    Raises:
        CheckpointError: peft's files are missing or damaged, or do not fit the model.
    """
    from peft import LoraConfig, set_peft_model_state_dict  # here: see TYPE_CHECKING

    try:
        weights = load_file(folder / ADAPTER_WEIGHTS_FILE)
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = False
        adapter = _inject(whisper, config, base)
        missing = adapter.state().keys() ^ weights.keys()
        if not missing:
            set_peft_model_state_dict(adapter._peft_model, weights)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(folder, f"its adapter cannot be added to {base.name}: {error}") from error
    if missing:
        raise CheckpointError(
            folder,
            f"{ADAPTER_CONFIG_FILE} and {ADAPTER_WEIGHTS_FILE} do not belong together: {sorted(missing)[0]} and "
            f"{len(missing) - 1} more weights are in one of them only",
        )
    return adapter


def read_adapter_base(folder: Path, *, base: str | None = None) -> AdapterBase:
    """Read which base model a saved adapter belongs to.

    Args:
        folder: of the adapter.
        base: folder or Hub id of the base, if not the one in the adapter's files.

    Raises:
        CheckpointError: peft's files are missing or damaged, name no base, or are of another method than LoRA.
    """
    path = folder / ADAPTER_CONFIG_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        with safe_open(folder / ADAPTER_WEIGHTS_FILE, framework="pt") as weights:
            metadata: dict[str, str] = weights.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(folder, f"its adapter cannot be read: {error}") from error
    if values.get("peft_type") != "LORA":
        raise CheckpointError(folder, f"{ADAPTER_CONFIG_FILE}: peft_type is {values.get('peft_type')!r}, not 'LORA'")
    digest = metadata.get(_DIGEST_KEY)
    if base is not None:
        return AdapterBase(base, revision=None, weights_sha256=digest)
    if not values.get("base_model_name_or_path"):
        raise CheckpointError(folder, f"{ADAPTER_CONFIG_FILE} names no base model; give one as base")
    return AdapterBase(values["base_model_name_or_path"], values.get("revision"), digest)


def _inject(whisper: TrimmedWhisper, config: "LoraConfig", base: AdapterBase) -> Adapter:
    from peft import PeftModel  # here: see TYPE_CHECKING

    from sottovoce.model.token_rows import use_token_rows  # it imports peft

    peft_model = PeftModel(whisper, config, adapter_name=_NAME)
    use_token_rows(peft_model)
    peft_model.eval()  # its new modules begin in training
    return Adapter(peft_model, base)


def _target_modules(settings: LoraSettings) -> list[str] | str:
    """Return the matrices for peft: by the last part of their names, or as a pattern of whole names."""
    if settings.part == "both":
        return sorted(settings.targets)
    return rf"model\.{settings.part}\.layers\..*\.({'|'.join(sorted(settings.targets))})"


def _digest_weights(folder: Path) -> str:
    """Return the SHA-256 over a model's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("model*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _find_missing_file(folder: Path) -> str | None:
    """Return the name of a missing weight file; None if all are there. An index names the parts of a sharded model."""
    index, names = folder / "model.safetensors.index.json", ["model.safetensors"]
    if index.is_file():
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (OSError, ValueError, KeyError, AttributeError):
            return f"a {index.name} that can be read"
    return next((name for name in sorted(names) if not (folder / name).is_file()), None)
