"""Share one Whisper in memory between many adapters; it computes with one of them at a time.

The adapters are not merged into the base's matrices: a switch sets a flag in each layer and writes the embedding rows
that an adapter may have, and nothing of the base is stored twice. The rows are swapped here and not by peft, which
would copy the whole embedding at every token.

A call then takes 1.0 to 1.3 times as long as with merged weights, and a switch 3 ms (micro, rank 16 in every matrix, 1
or 8 windows, CPU time on one thread of a Xeon, 2026-11-21). A merged copy would take the base's memory again.
"""

import filecmp
import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sottovoce.errors import CheckpointError
from sottovoce.model.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, ROWS_KEY, shares_base
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Adapted, Checkpoint, load_checkpoint, load_tokenizer, read_model_config
from sottovoce.model.context import set_audio_context
from sottovoce.model.generation import load_generation_config
from sottovoce.model.variants import RunDevice

if TYPE_CHECKING:  # peft takes seconds to import, and only adapters need it
    from peft import LoraConfig, PeftModel

_TOKENIZER_FILE = "tokenizer.json"
_MATRICES_PREFIX = "lora_"  # of the names of peft's LoRA modules


@dataclass(frozen=True)
class _Rows:
    """The embedding rows of one adapter, and the base's rows they replace."""

    token_ids: Tensor
    own: Tensor
    base: Tensor


@dataclass(frozen=True)
class _Setting:
    """What one adapter, or the base itself, sets in the model besides the matrices."""

    context: AudioContext
    generation_config: Any  # transformers sets Whisper's own fields at run time
    rows: _Rows | None = None


class SharedBase:
    """A checkpoint's model with any number of adapters."""

    def __init__(self, folder: str | Path, *, base: str | Path | None = None, device: RunDevice = "cpu") -> None:
        """Load the base: in float32 on the CPU, in float16 on a GPU.

        Args:
            folder: of the base. An adapter is merged into its own.
            base: see ``load_checkpoint``.
            device: where it computes.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        self.checkpoint = move_to(load_checkpoint(folder, base=base), device)
        model = self.checkpoint.model
        self._settings: dict[str | None, _Setting] = {None: _Setting(self.checkpoint.context, model.generation_config)}
        self._active: str | None = None
        self._peft_model: PeftModel | None = None
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that were added."""
        return tuple(name for name in self._settings if name is not None)

    def add(self, adapted: Adapted) -> tuple[str, Checkpoint]:
        """Add an adapter; wait while the model computes.

        Args:
            adapted: its files, as ``find_adapted`` returned them for this base.

        Returns:
            The adapter's name here, and the shared model with the adapter's tokenizer (the base's object if they are
            equal). The model computes with the adapter only within ``using``.

        Raises:
            CheckpointError: its files are missing or damaged, do not fit the base, or change more than matrices.
        """
        if not shares_base(adapted.folder):
            reason = "its adapter changes more than the layers' matrices, so that no other could share its base"
            raise CheckpointError(adapted.folder, f"{reason}: merge it first, with python -m jobs.merge_adapter")
        name = f"adapter{next(self._numbers)}"
        tokenizer = self.checkpoint.tokenizer
        if not shares_tokenizer(adapted):
            tokenizer = load_tokenizer(adapted.tokenizer, adapted.folder)
        context = AudioContext.of(read_model_config(adapted.configs))
        try:
            generation_config = load_generation_config(adapted.configs, tokenizer, source=adapted.folder)
            weights = load_file(adapted.folder / ADAPTER_WEIGHTS_FILE)
            with self._lock:
                rows = self._inject(name, adapted.folder, weights)
        except CheckpointError:
            raise
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            reason = f"its adapter cannot be added to {adapted.base.name}: {error}"
            raise CheckpointError(adapted.folder, reason) from error
        self._settings[name] = _Setting(context, generation_config, rows)
        return name, Checkpoint(model=self.checkpoint.model, tokenizer=tokenizer, source=str(adapted.folder))

    def remove(self, name: str) -> None:
        """Remove an adapter and free its memory; wait while the model computes."""
        assert self._peft_model is not None, "an adapter can only be removed after it was added"
        with self._lock:
            self._activate(None)
            del self._settings[name]
            self._peft_model.delete_adapter(name)

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Make the model compute with one adapter, or as the base if None; other callers wait."""
        with self._lock:
            if name != self._active:
                self._activate(name)
            yield

    def _activate(self, name: str | None) -> None:
        """Swap rows and settings here, and let peft select the adapters of the matrices."""
        model, before, after = self.checkpoint.model, self._settings[self._active], self._settings[name]
        if before.rows is not None:
            self._write_rows(before.rows.token_ids, before.rows.base)
        if after.rows is not None:
            self._write_rows(after.rows.token_ids, after.rows.own)
        set_audio_context(model.config, after.context)
        model.generation_config = after.generation_config
        self._select(name)
        self._active = name

    def _select(self, name: str | None) -> None:
        if self._peft_model is not None:
            layers: Any = self._peft_model.base_model
            layers.set_adapter([] if name is None else name, inference_mode=True)

    def _write_rows(self, token_ids: Tensor, rows: Tensor) -> None:
        with torch.no_grad():
            self.checkpoint.model.model.decoder.embed_tokens.weight[token_ids] = rows

    def _inject(self, name: str, folder: Path, weights: dict[str, Tensor]) -> _Rows | None:
        """Add an adapter's matrices to the layers without activating them; discard them if they do not fit."""
        from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        self._activate(None)
        rows = self._take_rows(config, weights)
        with ExitStack() as refused:
            refused.callback(self._discard, name)  # on an error, peft keeps what it has injected, active
            if self._peft_model is None:
                self._peft_model = PeftModel(self.checkpoint.model, config, adapter_name=name)
            else:
                self._peft_model.add_adapter(name, config)
            self._peft_model.eval()  # its new modules begin in training
            expected = get_peft_model_state_dict(self._peft_model, adapter_name=name, save_embedding_layers=False)
            if expected.keys() != weights.keys():
                reason = f"{ADAPTER_CONFIG_FILE} and {ADAPTER_WEIGHTS_FILE} do not belong together"
                raise CheckpointError(folder, reason)
            set_peft_model_state_dict(self._peft_model, weights, adapter_name=name)
            refused.pop_all()
        self._select(None)
        return rows

    def _discard(self, name: str) -> None:
        """Remove what was injected of an adapter, completely or in part."""
        from peft.functional import delete_adapter, set_adapter

        model = self.checkpoint.model
        set_adapter(model, [], inference_mode=True)  # otherwise peft activates another adapter
        delete_adapter(model, name, prefix=_MATRICES_PREFIX)
        if self._peft_model is not None:
            self._peft_model.peft_config.pop(name, None)
            self._select(None)

    def _take_rows(self, config: "LoraConfig", weights: dict[str, Tensor]) -> _Rows | None:
        """Pop the embedding rows from an adapter's config and weights, so that peft does not handle them."""
        indices = config.trainable_token_indices
        config.trainable_token_indices = None
        keys = [key for key in weights if key.endswith(ROWS_KEY)]
        if not indices or not keys:
            return None
        token_ids = torch.tensor(next(iter(indices.values())) if isinstance(indices, dict) else indices)
        table = self.checkpoint.model.model.decoder.embed_tokens.weight
        return _Rows(token_ids, weights.pop(keys[0]).to(table), table[token_ids].detach().clone())


def move_to(checkpoint: Checkpoint, device: RunDevice) -> Checkpoint:
    """Move a checkpoint's model to a device; on a GPU its weights become float16."""
    if device == "cuda":
        nn.Module.to(checkpoint.model, device=device, dtype=torch.float16)
    return checkpoint


def shares_tokenizer(adapted: Adapted) -> bool:
    """Whether an adapter's tokenizer equals its base's; a second one would take more memory than most adapters."""
    own, base = (folder / _TOKENIZER_FILE for folder in (adapted.tokenizer, adapted.base_folder))
    return own.is_file() and base.is_file() and filecmp.cmp(own, base, shallow=False)
