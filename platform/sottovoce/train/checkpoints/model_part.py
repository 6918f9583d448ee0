"""The model's part of a checkpoint: the files ``save_checkpoint`` would write, with the weights as they are now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import safe_open
from torch import Tensor
from transformers import WhisperFeatureExtractor
from transformers.utils import SAFE_WEIGHTS_NAME

from sottovoce.model.adapter import ADAPTER_WEIGHTS_FILE
from sottovoce.model.checkpoint import Checkpoint, save_checkpoint

_METADATA = {"format": "pt"}  # transformers refuses to read weights without it


@dataclass(frozen=True)
class ModelPart:
    """A model on its way to storage: what stays the same during a run is read once."""

    checkpoint: Checkpoint
    files: Mapping[str, bytes]
    """All but the weights, by name."""
    weights_file: str
    metadata: Mapping[str, str]
    """Of the weights' file."""

    def weights(self) -> dict[str, Tensor]:
        """Give the weights under the names of the file: what an adapter adds, or all of the model, tied ones once."""
        if self.checkpoint.adapter is not None:
            return self.checkpoint.adapter.state()
        return untied(self.checkpoint.model.state_dict())


def read_model_part(checkpoint: Checkpoint) -> ModelPart:
    """Read what of a model does not change while it is trained: configs, tokenizer, feature extractor."""
    with TemporaryDirectory() as name:
        folder, metadata = Path(name), dict(_METADATA)
        if checkpoint.adapter is None:
            checkpoint.model.save_pretrained(folder, state_dict={}, safe_serialization=True)  # configs alone
            checkpoint.tokenizer.save_pretrained(folder)
            WhisperFeatureExtractor(feature_size=checkpoint.num_mel_bins).save_pretrained(folder)
            weights_file = SAFE_WEIGHTS_NAME
        else:
            save_checkpoint(checkpoint, folder)
            weights_file = ADAPTER_WEIGHTS_FILE
            with safe_open(folder / weights_file, framework="pt") as weights:
                metadata = dict(weights.metadata() or {})
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != weights_file}
    return ModelPart(checkpoint, files, weights_file, metadata)


def untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out names of what stands under an earlier name already: Whisper's output layer is its embedding."""
    seen: set[tuple[int, int]] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() == 0 or place not in seen:
            own[name] = tensor
        seen.add(place)
    return own
