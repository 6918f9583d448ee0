"""Load models in a replica, and count their memory. Checkpoints and adapters: see ``torch_loading``."""

import ctypes
import gc
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serve.models.file_digests import FileDigest, describe_files, digest_contents
from serve.models.model_plan import ModelPlan
from sottovoce.model.source import resolve_folder
from sottovoce.model.variants import FORMATS, TORCH, RunDevice, model_bytes
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions

if TYPE_CHECKING:
    from serve.models.torch_loading import TorchModels
    from sottovoce.model.checkpoint import Adapted

# Growth of RSS less the weights' bytes, micro in all variants (2 cores of a Xeon, 2026-11-21): 65 to 75 MB, of which
# a tokenizer alone is 60 to 65.
TOKENIZER_BYTES = 65 * 2**20
FIXED_BYTES = 8 * 2**20

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
    device: RunDevice = "cpu"
    """In whose memory it is."""
    adapted: "Adapted | None" = None
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
    files: tuple[FileDigest, ...] = ()
    """The files it was read from."""


def count_bytes(footprints: Iterable[Footprint]) -> int:
    """Return the bytes of several models together, counting each base once."""
    counted = list(footprints)
    bases = {footprint.base: footprint.base_bytes for footprint in counted}
    return sum(footprint.own_bytes for footprint in counted) + sum(bases.values())


class ModelLoader:
    """Load models from plans. It holds no model."""

    def __init__(self, *, num_threads: int, device: RunDevice = "cpu") -> None:
        """Prepare.

        Args:
            num_threads: engine threads of each model.
            device: where models run whose format runs there; others run on the CPU.
        """
        self._num_threads = num_threads
        self._device = device

    def measure(self, plan: ModelPlan) -> Footprint:
        """Compute a model's memory from its files.

        Raises:
            CheckpointError: its files are missing or damaged.
        """
        if plan.variant == TORCH:
            return self._torch_models.measure(plan)
        weights = FORMATS[plan.variant].memory_factor * model_bytes(Path(plan.folder), plan.variant)
        return Footprint(FIXED_BYTES + TOKENIZER_BYTES + round(weights), device=self._device_of(plan))

    def load(self, plan: ModelPlan, footprint: Footprint) -> LoadedModel:
        """Load a model and run it once.

        Raises:
            CheckpointError: its files are missing or damaged, or the export gate refused it.
        """
        started = time.monotonic()
        folder = resolve_folder(plan.folder) if plan.variant == TORCH else Path(plan.folder)
        model = LoadedModel(plan, self._load(plan, footprint), footprint, digest_contents(folder, plan.variant))
        try:
            warm_up(model.recognizer)
        except BaseException:
            self.unload(model)  # otherwise its adapter would stay in the shared base
            raise
        taken_s = time.monotonic() - started
        read = describe_files(model.files)
        _log.info("%s loaded in %.1f s as %s from %s: %s", plan.key, taken_s, model.recognizer.name, folder, read)
        return model

    def unload(self, model: LoadedModel) -> None:
        """Remove an adapter from its base. Other models are freed once nothing refers to them."""
        if model.footprint.adapted is not None:
            self._torch_models.unload(model.recognizer)

    def free_memory(self) -> None:
        """Return the memory of unreferenced models to the system.

        A torch model refers to itself, so reference counting does not free it. And glibc keeps what was freed: of four
        int8 models of micro, 57 of 350 MB went back by themselves (AMD EPYC, 2026-11-30).
        """
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other systems' allocators have none
        if trim is not None:
            trim(0)

    def _load(self, plan: ModelPlan, footprint: Footprint) -> Recognizer:
        if plan.variant == TORCH:
            return self._torch_models.load(plan, footprint)
        device = self._device_of(plan)
        return load_recognizer(plan.folder, variant=plan.variant, num_threads=self._num_threads, device=device)

    def _device_of(self, plan: ModelPlan) -> RunDevice:
        return self._device if self._device in FORMATS[plan.variant].devices else "cpu"

    @cached_property
    def _torch_models(self) -> "TorchModels":
        from serve.models.torch_loading import TorchModels  # here: exported variants need no torch

        return TorchModels(num_threads=self._num_threads, device=self._device)


def warm_up(recognizer: Recognizer) -> None:
    """Decode silence of the longest context once, so that buffers are allocated and kernels chosen.

    Raises:
        SottovoceError: the recognizer cannot decode.
    """
    silence = np.zeros(int(recognizer.context.max_s * SAMPLING_RATE), np.float32)
    language = "en" if "en" in recognizer.languages else None
    recognizer.recognize([silence], [DecodeOptions(language=language, max_new_tokens=4)])
