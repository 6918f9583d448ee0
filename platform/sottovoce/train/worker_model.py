"""The model of a run: its size, counted by the driver, and how each worker loads it and sets it up for training."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import nn
from transformers import WhisperTokenizerFast

from sottovoce.checkpoints.state import MODEL_FOLDER, load_training_state
from sottovoce.model.adapter import AdapterBase, add_adapter
from sottovoce.model.checkpoint import Checkpoint, adapt_base, load_adapted, load_checkpoint, read_model_config
from sottovoce.model.context import TrimmedWhisper, set_audio_context
from sottovoce.model.frozen_base import halve_frozen_matrices
from sottovoce.model.labels import is_english_only, used_token_ids
from sottovoce.model.source import resolve_folder
from sottovoce.schema import Utterance
from sottovoce.text.normalize import read_spelling
from sottovoce.train.config import TrainingConfig
from sottovoce.train.distillation import DistillationObjective
from sottovoce.train.methods import METHODS
from sottovoce.train.objective import WhisperObjective, parameter_groups, prepare_whisper

RunPrecision: TypeAlias = Literal["fp16", "bf16", "fp32"]
"""``Precision`` without ``auto``."""

_COMPUTE_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class ParameterCount(NamedTuple):
    """How many numbers a model consists of."""

    base: int
    """Of the base model; tied weights count once."""
    trained: int
    """Those that training changes, including those of an adapter."""


def count_weights(base: str) -> int:
    """Count a base model's weights from its config alone. Tied weights count once.

    Raises:
        CheckpointError: no such model.
    """
    return _count(_build_without_memory(resolve_folder(base)))


def count_parameters(config: TrainingConfig, utterances: Sequence[Utterance]) -> ParameterCount:
    """Count what a run trains, on a model that takes no memory.

    Args:
        config: of the run.
        utterances: the training split; an adapter may train the embedding rows of its tokens.

    Raises:
        CheckpointError: no such base model.
    """
    folder = resolve_folder(config.base)
    whisper = _build_without_memory(folder)
    base = _count(whisper)
    if config.trains_adapter:
        tokens = _find_tokens(config, folder, utterances)
        whisper_base = AdapterBase(config.base, revision=None, weights_sha256=None)
        with torch.device("meta"):
            add_adapter(whisper, config.lora, base=whisper_base, token_ids=tokens, seed=config.seed)
    prepare_whisper(whisper, method=config.method, dropout=0.0, gradient_checkpointing=False)
    return ParameterCount(base, sum(weight.numel() for weight in whisper.parameters() if weight.requires_grad))


def _build_without_memory(folder: Path) -> TrimmedWhisper:
    with torch.device("meta"):
        return TrimmedWhisper(read_model_config(folder))


def _count(whisper: TrimmedWhisper) -> int:
    return sum(weight.numel() for weight in whisper.parameters())


def _find_tokens(config: TrainingConfig, folder: Path, utterances: Sequence[Utterance]) -> set[int]:
    if not config.lora.token_rows:
        return set()
    return used_token_ids(WhisperTokenizerFast.from_pretrained(folder, local_files_only=True), utterances)


@dataclass(frozen=True)
class WorkerModel:
    """What one worker trains, and what it trains it with."""

    checkpoint: Checkpoint
    """Holds the trained model itself, with its tokenizer."""
    accelerator: Accelerator
    objective: WhisperObjective
    wrapped: nn.Module
    """The objective as accelerate prepared it: DDP around it where there are several ranks."""
    optimizer: torch.optim.Optimizer


def build_worker_model(
    config: TrainingConfig,
    utterances: Sequence[Utterance],
    *,
    device: Literal["cpu", "cuda"],
    precision: RunPrecision,
    resume_folder: Path | None,
) -> WorkerModel:
    """Load what a worker trains and join the process group. Every rank must call it.

    Args:
        config: of the run.
        utterances: the training split.
        device: what the worker computes on.
        precision: what it computes in.
        resume_folder: the run's last checkpoint, None at a run's start. It also holds the optimizer's and the random
            generators' states.

    Raises:
        CheckpointError: see ``load_start``.
    """
    checkpoint = load_start(config, utterances, precision=precision, resume_folder=resume_folder)
    set_up(checkpoint, config)
    accelerator = build_accelerator(device=device, precision=precision)
    set_seed(config.seed, device_specific=True)
    objective = _build_objective(checkpoint.model, config)
    groups = parameter_groups(objective, weight_decay=config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.peak_lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    wrapped, prepared = accelerator.prepare(objective, optimizer)
    if resume_folder is not None:
        load_training_state(resume_folder, accelerator, prepared)
    return WorkerModel(checkpoint, accelerator, objective, wrapped, prepared)


def _build_objective(whisper: TrimmedWhisper, config: TrainingConfig) -> WhisperObjective:
    """Build what is minimized; a method that distills loads its base once more, as the teacher."""
    padded = config.padded_probability
    if METHODS[config.method].distills:
        return DistillationObjective(whisper, load_checkpoint(config.base).model, padded_probability=padded)
    return WhisperObjective(whisper, label_smoothing=config.label_smoothing, padded_probability=padded)


def load_start(
    config: TrainingConfig, utterances: Sequence[Utterance], *, precision: RunPrecision, resume_folder: Path | None
) -> Checkpoint:
    """Load the model a worker starts with: the base model, or that of the run's last checkpoint.

    Args:
        config: of the run.
        utterances: the training split.
        precision: what the run computes in; a base beside an adapter is held in it.
        resume_folder: the run's last checkpoint, None at a run's start.

    Raises:
        CheckpointError: see ``load_base`` and ``load_resumed``.
    """
    if resume_folder is None:
        checkpoint = load_base(config, utterances, precision=precision)
    else:
        checkpoint = load_resumed(config, resume_folder, precision=precision)
    if METHODS[config.method].base_held_in == "compute" and precision != "fp32":
        halve_frozen_matrices(checkpoint.model, _COMPUTE_TYPES[precision])
    return checkpoint


def load_base(
    config: TrainingConfig, utterances: Sequence[Utterance], *, precision: RunPrecision = "fp32"
) -> Checkpoint:
    """Load the base model, add an adapter if the method trains one, and adjust its configs to this run.

    Args:
        config: of the run.
        utterances: the training split; it determines language and task.
        precision: what the run computes in.

    Raises:
        CheckpointError: no such model, or an adapter for an adapter.
    """
    if config.trains_adapter:
        checkpoint = adapt_base(
            config.base,
            config.lora,
            token_ids=partial(used_token_ids, utterances=utterances),
            seed=config.seed,
            four_bit=_find_four_bit_type(config, precision),
        )
    else:
        checkpoint = load_checkpoint(config.base)
    model = checkpoint.model
    if config.audio_context is not None:
        set_audio_context(model.config, replace(config.audio_context, padding=model.audio_context.padding))
    languages = {utterance.language for utterance in utterances}
    language = languages.pop() if len(languages) == 1 else None  # None: detected anew for each window
    tasks = {utterance.task for utterance in utterances}
    task = tasks.pop() if len(tasks) == 1 else "transcribe"
    # Language and task replace forced ids; transformers refuses both together. Its own update() sets only attributes
    # that exist already, so they are assigned here.
    generation: Any = model.generation_config
    # transformers refuses language and task of an English-only model
    generation.language, generation.task = (None, None) if is_english_only(checkpoint.tokenizer) else (language, task)
    generation.forced_decoder_ids = None
    model.config.forced_decoder_ids = None
    if not all(utterance.text.strip() for utterance in utterances):
        _allow_empty_transcripts(generation)
    return checkpoint


def _allow_empty_transcripts(generation: Any) -> None:  # noqa: ANN401 - transformers' own config adds fields at will
    """Allow the end token first. Stock Whisper suppresses it there and so never writes an empty transcript."""
    suppressed = generation.begin_suppress_tokens or ()
    generation.begin_suppress_tokens = [token for token in suppressed if token != generation.eos_token_id]


def load_resumed(config: TrainingConfig, folder: Path, *, precision: RunPrecision = "fp32") -> Checkpoint:
    """Load the model of a run's own checkpoint as it was trained: an adapter beside its base.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    if config.trains_adapter:
        return load_adapted(folder / MODEL_FOLDER, four_bit=_find_four_bit_type(config, precision))
    return load_checkpoint(folder / MODEL_FOLDER)


def _find_four_bit_type(config: TrainingConfig, precision: RunPrecision) -> torch.dtype | None:
    """Return the type a base in 4 bits computes in; None if the method does not hold it in 4 bits."""
    return _COMPUTE_TYPES[precision] if METHODS[config.method].base_held_in == "nf4" else None


def set_up(checkpoint: Checkpoint, config: TrainingConfig) -> None:
    """Set a loaded model up for training, in place."""
    prepare_whisper(
        checkpoint.model,
        method=config.method,
        dropout=config.dropout,
        gradient_checkpointing=config.gradient_checkpointing,
    )


def read_base_spelling(base: str) -> dict[str, str]:
    """Read the table of spellings that comes with a base model's tokenizer."""
    return read_spelling(resolve_folder(base))


def build_accelerator(*, device: Literal["cpu", "cuda"], precision: RunPrecision) -> Accelerator:
    """Build accelerate around the process group that Ray Train has opened."""
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        step_scheduler_with_optimizer=False,
        # gradients live in the buckets that are reduced: saves one copy of them, in memory and at each step
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def quieten_libraries() -> None:
    """Silence what libraries log at each checkpoint and each stream."""
    for library in ("accelerate", "ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that its bars are off, as asked
    # It warns that "the job may hang forever" when the streams of two workers take turns on one CPU. Where reading does
    # hold training up, the progress line shows the data wait, and the heartbeat ends a run that stands still.
    logging.getLogger("ray.data._internal.execution.resource_manager").setLevel(logging.ERROR)
    for module in ("exceptions", "_internal.execution.streaming_executor_state"):  # report our errors as Ray's own
        logging.getLogger(f"ray.data.{module}").setLevel(logging.CRITICAL)
