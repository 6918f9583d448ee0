"""Load checkpoints and adapters in a replica: one base in memory for all its adapters.

Imported when the first of them is measured: torch and transformers take seconds to import and 400 MB of memory, which a
replica that serves exported variants does not need.
"""

import math
import weakref
from pathlib import Path

from safetensors import SafetensorError, safe_open

from serve.models.loading import FIXED_BYTES, TOKENIZER_BYTES, Footprint
from serve.models.model_files import digest_files
from serve.models.model_plan import ModelPlan
from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import is_adapter, shares_base
from sottovoce.model.checkpoint import Adapted, find_adapted, load_checkpoint, read_model_config
from sottovoce.model.shared_base import SharedBase, move_to, shares_tokenizer
from sottovoce.model.source import resolve_folder
from sottovoce.model.variants import RunDevice
from sottovoce.recognize.adapted import AdaptedRecognizer, share_adapter, share_base
from sottovoce.recognize.recognizer import Recognizer

_FLOAT32_BYTES = 4  # weights are float32 in memory, whatever their file holds; on a GPU half of it


class TorchModels:
    """Checkpoints and adapters of one replica. It holds no model, but remembers the bases that are still in use."""

    def __init__(self, *, num_threads: int, device: RunDevice = "cpu") -> None:
        """Prepare; ``num_threads`` are those of each model, which runs on ``device``."""
        self._num_threads, self._device = num_threads, device
        self._bases: weakref.WeakValueDictionary[str, SharedBase] = weakref.WeakValueDictionary()

    def measure(self, plan: ModelPlan) -> Footprint:
        """Compute a model's memory from its files; see ``ModelLoader.measure``."""
        folder = resolve_folder(plan.folder)
        adapted = find_adapted(folder, base=plan.base) if is_adapter(folder) else None
        base_folder = folder if adapted is None else adapted.base_folder
        base_bytes = TOKENIZER_BYTES + _weight_bytes(base_folder)
        own = FIXED_BYTES
        if plan.assistant is not None:  # each model holds its own assistant
            own += TOKENIZER_BYTES + _weight_bytes(resolve_folder(plan.assistant))
        if adapted is not None and not shares_base(folder):  # merged into a base of its own
            merged_bytes = base_bytes + _weight_bytes(folder) + _embedding_bytes(adapted)
            return Footprint(own, f"{_base_id(folder)}:{_base_id(base_folder)}", merged_bytes, device=self._device)
        if adapted is not None:
            own += _weight_bytes(folder) + (0 if shares_tokenizer(adapted) else TOKENIZER_BYTES)
        return Footprint(own, _base_id(base_folder), base_bytes, device=self._device, adapted=adapted)

    def load(self, plan: ModelPlan, footprint: Footprint) -> Recognizer:
        """Load a model onto its base, which is loaded first where no other model holds it."""
        assert footprint.base is not None
        threads, adapted = self._num_threads, footprint.adapted
        assistant = None if plan.assistant is None else move_to(load_checkpoint(plan.assistant), self._device)
        shared = self._bases.get(footprint.base)
        if shared is None:
            source = plan.folder if adapted is None else adapted.base_folder
            shared = SharedBase(source, base=plan.base if adapted is None else None, device=self._device)
            self._bases[footprint.base] = shared
        if adapted is None:
            return share_base(shared, num_threads=threads, assistant=assistant)
        return share_adapter(shared, adapted, num_threads=threads, assistant=assistant)

    def unload(self, recognizer: Recognizer) -> None:
        """Remove an adapter from its base."""
        if isinstance(recognizer, AdaptedRecognizer):
            recognizer.close()


def _base_id(folder: Path) -> str:
    """Return the identity of a base: equal for any spelling of its folder, different once its files are rewritten."""
    resolved = str(folder.resolve())
    return f"{resolved}:{digest_files(resolved)}"


def _embedding_bytes(adapted: Adapted) -> int:
    """Return the bytes of a second embedding matrix: merged adapters may need one for the output layer."""
    config = read_model_config(adapted.base_folder)
    return _FLOAT32_BYTES * int(config.vocab_size) * int(config.d_model)


def _weight_bytes(folder: Path) -> int:
    """Return the bytes of a checkpoint's weights as float32, from the headers of its files."""
    return sum(_tensor_bytes(path) for path in folder.glob("*.safetensors"))


def _tensor_bytes(path: Path) -> int:
    try:
        with safe_open(path, framework="np") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(path.parent, f"{path.name}: {error}") from error
    return sum(_FLOAT32_BYTES * math.prod(shape) for shape in shapes)
