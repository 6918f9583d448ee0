"""LoRA adapters: a few trained weights beside a frozen Whisper, stored in peft's files.

W' = W + alpha / rank * B @ A for each adapted matrix W (out, in), A (rank, in), B (out, rank); B starts at zero, so an
untrained adapter changes nothing. Source: Hu et al. 2021, through the peft library.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sottovoce.config import Config
from sottovoce.errors import CheckpointError
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.source import find_weight_files

if TYPE_CHECKING:  # peft takes seconds to import, and only adapters need it
    from peft import LoraConfig, PeftModel

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_PICKLED_FILE = "adapter_model.bin"
_DIGEST_KEY = "base_weights_sha256"  # in the metadata of the weights' file, which peft leaves alone
_NAME = "default"  # peft's name of a model's first adapter
# peft's AutoPeftModel builds this class around the adapter: stock Whisper, which works without Sottovoce.
_AUTO_MAPPING = {
    "base_model_class": "WhisperForConditionalGeneration",
    "parent_library": "transformers.models.whisper.modeling_whisper",
}

_WHISPER_CLASSES = (_AUTO_MAPPING["base_model_class"], TrimmedWhisper.__name__)
# peft's methods that change no weights of the base, so that there is nothing to merge.
_UNMERGED = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "ADAPTION_PROMPT")
_WHOLE_EMBEDDING = re.compile(r"\.(embed_tokens|proj_out)(\.base_layer)?\.weight$")
ROWS_KEY = ".trainable_tokens_delta"  # suffix of the embedding rows in peft's file
_EMBEDDING_ROWS = f".embed_tokens.token_adapter{ROWS_KEY}"  # the output layer may have other rows
_LAYER_MATRIX = re.compile(r"\.layers\.\d+\..*\.lora_")
_PLAIN_STARTS = (
    "gaussian",
    "eva",
    "orthogonal",
)  # initial weights that leave the base as it is; others are split off it

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
            find_weight_files(folder)
            raise CheckpointError(folder, "its weights are not those the adapter was trained on")


class Adapter:
    """A LoRA adapter that is active in a Whisper model."""

    def __init__(self, peft_model: "PeftModel", base: AdapterBase) -> None:
        self._peft_model = peft_model
        self.base = base
        self._has_embeddings = False

    def state(self) -> dict[str, Tensor]:
        """Return the adapter's weights by peft's names, float32."""
        return self._state(embeddings=self._has_embeddings)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights by peft's names. The base's embeddings may be among them, as peft saves them on occasion.

        Raises:
            ValueError: a weight is missing, is not the adapter's, or has another shape.
        """
        from peft import set_peft_model_state_dict  # here: see TYPE_CHECKING

        needed, known = self._state(embeddings=False), self._state(embeddings=True)
        for name in sorted(weights.keys() & known.keys()):
            found, expected = tuple(weights[name].shape), tuple(known[name].shape)
            if found != expected:
                raise ValueError(f"{name} is {found}, and must be {expected} there; give it its own base")
        strange = sorted((needed.keys() - weights.keys()) | (weights.keys() - known.keys()))
        if strange:
            raise ValueError(
                f"{ADAPTER_CONFIG_FILE} and {ADAPTER_WEIGHTS_FILE} do not belong together: {strange[0]} and "
                f"{len(strange) - 1} more weights are in one of them only"
            )
        set_peft_model_state_dict(self._peft_model, dict(weights))
        self._has_embeddings = not weights.keys() <= needed.keys()

    def _state(self, *, embeddings: bool) -> dict[str, Tensor]:
        from peft import get_peft_model_state_dict  # here: see TYPE_CHECKING

        # True or False: left to itself, peft asks the Hub at each call whether the vocabulary was enlarged
        weights: dict[str, Tensor] = get_peft_model_state_dict(self._peft_model, save_embedding_layers=embeddings)
        return weights

    def save(self, folder: Path) -> None:
        """Write peft's two files. They name the base and contain none of its weights."""
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"format": "pt"}
        if self.base.weights_sha256 is not None:
            metadata[_DIGEST_KEY] = self.base.weights_sha256
        # copies: saved embeddings may share a matrix, which safetensors refuses
        tensors = {name: weight.detach().cpu().contiguous().clone() for name, weight in self.state().items()}
        save_file(tensors, folder / ADAPTER_WEIGHTS_FILE, metadata=metadata)
        config = self._peft_model.peft_config[_NAME]
        config.inference_mode = True  # in the file only, so that peft alone loads it for inference
        config.save_pretrained(str(folder), auto_mapping_dict=_AUTO_MAPPING)
        config.inference_mode = False

    def merge(self) -> TrimmedWhisper:
        """Add the adapter to the matrices of its Whisper, and return that Whisper, now without an adapter.

        An adapter of the embedding or the output layer, which share a matrix, gives each a matrix of its own.

        Raises:
            ValueError: the adapter makes weights NaN or infinite.
        """
        merge_and_unload: Any = self._peft_model.merge_and_unload
        with _without_advice():
            _untie_adapted(self._peft_model.get_base_model())
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
    from peft import LoraConfig  # here: see TYPE_CHECKING

    try:
        weights = load_file(folder / ADAPTER_WEIGHTS_FILE)
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = False
        _enlarge_vocabulary(whisper, weights)
        adapter = _inject(whisper, config, base)
        adapter.load(weights)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(folder, f"its adapter cannot be added to {base.name}: {_one_line(error)}") from error
    return adapter


def shares_base(folder: Path) -> bool:
    """Whether an adapter leaves its base as it is, but for the layers' matrices and rows of the embedding.

    Others change biases, whole embeddings or other weights that a base has in memory once for all its adapters.

    Raises:
        CheckpointError: peft's files are missing or damaged.
    """
    values, _, names = _read_files(folder)
    start = values.get("init_lora_weights", True)
    is_plain = isinstance(start, bool) or start in _PLAIN_STARTS
    return is_plain and all(_LAYER_MATRIX.search(name) or name.endswith(_EMBEDDING_ROWS) for name in names)


def read_adapter_base(folder: Path, *, base: str | None = None) -> AdapterBase:
    """Read which base model a saved adapter belongs to.

    Args:
        folder: of the adapter.
        base: folder or Hub id of the base, if not the one in the adapter's files.

    Raises:
        CheckpointError: peft's files are missing or damaged, name no base, or are of another method than LoRA or of
            another model than Whisper.
    """
    values, metadata, _ = _read_files(folder)
    digest = metadata.get(_DIGEST_KEY)
    if base is not None:
        return AdapterBase(base, revision=None, weights_sha256=digest)
    if not values.get("base_model_name_or_path"):
        raise CheckpointError(folder, f"{ADAPTER_CONFIG_FILE} names no base model; give one as base")
    return AdapterBase(values["base_model_name_or_path"], values.get("revision"), digest)


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return an adapter's config, and the metadata and the names of its weights.

    Raises:
        CheckpointError: see ``read_adapter_base``.
    """
    try:
        values: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
        _check_kind(values, folder)
        with safe_open(folder / ADAPTER_WEIGHTS_FILE, framework="pt") as weights:
            return values, weights.metadata() or {}, list(weights.keys())
    except CheckpointError:
        raise
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        pickled = (folder / _PICKLED_FILE).is_file() and not (folder / ADAPTER_WEIGHTS_FILE).is_file()
        reason = f"{_PICKLED_FILE} is a pickle, which can run code: save it as safetensors" if pickled else str(error)
        raise CheckpointError(folder, f"its adapter cannot be read: {reason}") from error


def _check_kind(values: dict[str, Any], folder: Path) -> None:
    """Refuse adapters of other methods than LoRA, and of other models than Whisper with an output layer."""
    method = values.get("peft_type")
    if method != "LORA":
        remedy = (
            "train a LoRA adapter, which can be merged"
            if method in _UNMERGED
            else ("merge it with peft's merge_and_unload, and use the merged model")
        )
        raise CheckpointError(folder, f"{ADAPTER_CONFIG_FILE}: peft_type is {method!r}, not 'LORA'; {remedy}")
    trained_in = (values.get("auto_mapping") or {}).get("base_model_class")
    if trained_in is not None and trained_in not in _WHISPER_CLASSES:
        raise CheckpointError(
            folder, f"its adapter was trained in a {trained_in}, not in a {_WHISPER_CLASSES[0]}; use one of Whisper"
        )


def _inject(whisper: TrimmedWhisper, config: "LoraConfig", base: AdapterBase) -> Adapter:
    from peft import PeftModel  # here: see TYPE_CHECKING

    from sottovoce.model.token_rows import use_token_rows  # it imports peft

    with _without_advice():
        peft_model = PeftModel(whisper, config, adapter_name=_NAME)
    use_token_rows(peft_model)
    peft_model.eval()  # its new modules begin in training
    return Adapter(peft_model, base)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence peft's advice about layers that share a matrix, which ``Adapter.merge`` follows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        yield


def _enlarge_vocabulary(whisper: TrimmedWhisper, weights: Mapping[str, Tensor]) -> None:
    """Add rows to the embedding where an adapter brings its own with more, for tokens added to the tokenizer."""
    num_rows = max((len(weight) for name, weight in weights.items() if _WHOLE_EMBEDDING.search(name)), default=0)
    if num_rows > whisper.config.vocab_size:
        whisper.resize_token_embeddings(num_rows, mean_resizing=False)


def _untie_adapted(whisper: nn.Module) -> None:
    """Copy the matrix that the embedding and the output layer share, if an adapter changes it in one of them."""
    from peft.tuners.lora import LoraLayer  # here: see TYPE_CHECKING
    from peft.utils.other import TrainableTokensWrapper

    embedding, output = whisper.get_submodule("model.decoder.embed_tokens"), whisper.get_submodule("proj_out")
    has_own_rows = isinstance(output, TrainableTokensWrapper) and output.token_adapter.tied_adapter is None
    if not has_own_rows and not any(isinstance(layer, LoraLayer) for layer in (embedding, output)):
        return
    base: Any = output
    while not isinstance(base, nn.Linear):
        base = base.original_module if isinstance(base, TrainableTokensWrapper) else base.base_layer
    base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)
    whisper.config.tie_word_embeddings = False  # type: ignore[union-attr]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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
