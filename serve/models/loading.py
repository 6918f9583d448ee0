"""Load models in a replica: their memory, and one base for all its adapters."""

import gc
import logging
import math
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from serve.engine import warm_up
from serve.models.model_files import digest_files
from serve.models.model_plan import ModelPlan
from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import is_adapter
from sottovoce.model.checkpoint import Adapted, find_adapted, load_checkpoint, resolve_folder
from sottovoce.model.shared_base import SharedBase, shares_tokenizer
from sottovoce.model.variants import FORMATS, TORCH, model_bytes
from sottovoce.recognize.adapted import AdaptedRecognizer, share_adapter, share_base
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer

# Growth of RSS less the weights' bytes, micro in all variants (2 cores of a Xeon, 2026-11-21): 65 to 75 MB, of which
# a tokenizer alone is 60 to 65.
_TOKENIZER_BYTES = 65 * 2**20
_FIXED_BYTES = 8 * 2**20
_FLOAT32_BYTES = 4  # weights are float32 in memory, whatever their file holds

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    """Memory of a model, computed from its files before it is loaded."""

    own_bytes: int
    """Bytes of the model alone, without a shared base."""
    base: str | None = None
    """Identity of the base whose weights it uses; None for an exported variant."""
    base_bytes: int = 0
    """Bytes of those weights and their tokenizer, which all models with this base share."""
    adapted: Adapted | None = None
    """The resolved and checked files of an adapter."""

    @property
    def total_bytes(self) -> int:
        """Bytes when nothing else is loaded."""
        return self.own_bytes + self.base_bytes


@dataclass(frozen=True)
class LoadedModel:
    """One model in memory."""

    plan: ModelPlan
    recognizer: Recognizer
    footprint: Footprint


def count_bytes(footprints: Iterable[Footprint]) -> int:
    """Return the bytes of several models together, counting each base once."""
    counted = list(footprints)
    bases = {footprint.base: footprint.base_bytes for footprint in counted}
    return sum(footprint.own_bytes for footprint in counted) + sum(bases.values())


class ModelLoader:
    """Load models from plans. It holds no model, but remembers the bases that are still in use."""

    def __init__(self, *, num_threads: int) -> None:
        """Prepare.

        Args:
            num_threads: engine threads of each model.
        """
        self._num_threads = num_threads
        self._bases: weakref.WeakValueDictionary[str, SharedBase] = weakref.WeakValueDictionary()

    def measure(self, plan: ModelPlan) -> Footprint:
        """Compute a model's memory from its files.

        Raises:
            CheckpointError: its files are missing or damaged.
        """
        if plan.variant != TORCH:
            return Footprint(_FIXED_BYTES + _TOKENIZER_BYTES + _export_bytes(plan))
        folder = resolve_folder(plan.folder)
        adapted = find_adapted(folder, base=plan.base) if is_adapter(folder) else None
        base_folder = folder if adapted is None else adapted.base_folder
        base_bytes = _TOKENIZER_BYTES + _weight_bytes(base_folder)
        own = _FIXED_BYTES
        if adapted is not None:
            own += _weight_bytes(folder) + (0 if shares_tokenizer(adapted) else _TOKENIZER_BYTES)
        if plan.assistant is not None:  # each model holds its own assistant
            own += _TOKENIZER_BYTES + _weight_bytes(resolve_folder(plan.assistant))
        return Footprint(own, _base_id(base_folder), base_bytes, adapted)

    def load(self, plan: ModelPlan, footprint: Footprint) -> LoadedModel:
        """Load a model and run it once.

        Raises:
            CheckpointError: its files are missing or damaged, or the export gate refused it.
        """
        started = time.monotonic()
        model = LoadedModel(plan, self._load(plan, footprint), footprint)
        try:
            warm_up(model.recognizer)
        except BaseException:
            self.unload(model)  # otherwise its adapter would stay in the shared base
            raise
        _log.info("%s loaded in %.1f s as %s", plan.key, time.monotonic() - started, model.recognizer.name)
        return model

    def unload(self, model: LoadedModel) -> None:
        """Remove an adapter from its base. Other models are freed once nothing refers to them."""
        if isinstance(model.recognizer, AdaptedRecognizer):
            model.recognizer.close()

    def free_memory(self) -> None:
        """Free unreferenced models: a torch model refers to itself, so reference counting does not free it."""
        gc.collect()

    def _load(self, plan: ModelPlan, footprint: Footprint) -> Recognizer:
        threads, adapted = self._num_threads, footprint.adapted
        if footprint.base is None:
            return load_recognizer(plan.folder, variant=plan.variant, num_threads=threads)
        assistant = None if plan.assistant is None else load_checkpoint(plan.assistant)
        shared = self._bases.get(footprint.base)
        if shared is None:
            shared = SharedBase(plan.folder if adapted is None else adapted.base_folder)
            self._bases[footprint.base] = shared
        if adapted is None:
            return share_base(shared, num_threads=threads, assistant=assistant)
        return share_adapter(shared, adapted, num_threads=threads, assistant=assistant)


def _base_id(folder: Path) -> str:
    """Return the identity of a base: equal for any spelling of its folder, different once its files are rewritten."""
    resolved = str(folder.resolve())
    return f"{resolved}:{digest_files(resolved)}"


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


def _export_bytes(plan: ModelPlan) -> int:
    """Return the bytes that an exported variant takes in memory, computed from its files and its format's factor."""
    return round(FORMATS[plan.variant].memory_factor * model_bytes(Path(plan.folder), plan.variant))
