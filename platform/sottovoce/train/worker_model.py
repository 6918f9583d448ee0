"""What a worker starts with: the model set up for training, and the accelerator around it."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.model.checkpoint import Checkpoint, adapt_base, load_adapted, load_checkpoint, resolve_folder
from sottovoce.model.context import AudioContext, set_audio_context
from sottovoce.model.frozen_base import halve_frozen_matrices
from sottovoce.model.labels import used_token_ids
from sottovoce.schema import Utterance
from sottovoce.text.normalize import read_spelling
from sottovoce.train.config import TrainingConfig
from sottovoce.train.objective import prepare_whisper

RunPrecision: TypeAlias = Literal["fp16", "bf16", "fp32"]
"""What is left of ``Precision`` once the machine is known."""

_COMPUTE_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def load_start(
    config: TrainingConfig, utterances: Sequence[Utterance], *, precision: RunPrecision, resume_folder: Path | None
) -> Checkpoint:
    """Load what a worker starts with: the base model, or what the run's last checkpoint made of it.

    Args:
        config: of the run.
        utterances: the training split.
        precision: what the run computes in; a base beside an adapter is held in it.
        resume_folder: of the run's last checkpoint.

    Raises:
        CheckpointError: see ``load_base`` and ``load_resumed``.
    """
    if resume_folder is None:
        checkpoint = load_base(config, utterances, precision=precision)
    else:
        checkpoint = load_resumed(config, resume_folder, precision=precision)
    if config.method == "lora" and precision != "fp32":
        halve_frozen_matrices(checkpoint.model, _COMPUTE_TYPES[precision])
    return checkpoint


def load_base(
    config: TrainingConfig, utterances: Sequence[Utterance], *, precision: RunPrecision = "fp32"
) -> Checkpoint:
    """Load the base model, add an adapter where one is trained, and write into the configs what this run makes of it.

    Args:
        config: of the run.
        utterances: the training split, which gives language and task.
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
            four_bit=_four_bit(config, precision),
        )
    else:
        checkpoint = load_checkpoint(config.base)
    model = checkpoint.model
    if config.audio_context_s is not None:
        set_audio_context(model.config, AudioContext(*config.audio_context_s))
    languages = {utterance.language for utterance in utterances}
    language = languages.pop() if len(languages) == 1 else None  # None: detected anew for each window
    tasks = {utterance.task for utterance in utterances}
    task = tasks.pop() if len(tasks) == 1 else "transcribe"
    # Language and task take the place of forced ids; transformers refuses both together. Not by its own update(),
    # which sets only what was there before.
    generation: Any = model.generation_config
    generation.language, generation.task, generation.forced_decoder_ids = language, task, None
    model.config.forced_decoder_ids = None
    if not all(utterance.text.strip() for utterance in utterances):
        _allow_empty_transcripts(generation)
    return checkpoint


def _allow_empty_transcripts(generation: Any) -> None:  # noqa: ANN401 - transformers' own config adds fields at will
    """Let the end token come first: stock Whisper may not write it there, and so never an empty transcript."""
    suppressed = generation.begin_suppress_tokens or ()
    generation.begin_suppress_tokens = [token for token in suppressed if token != generation.eos_token_id]


def load_resumed(config: TrainingConfig, folder: Path, *, precision: RunPrecision = "fp32") -> Checkpoint:
    """Load the model of a run's own checkpoint as it was trained: an adapter beside its base.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    if config.trains_adapter:
        return load_adapted(folder / MODEL_FOLDER, four_bit=_four_bit(config, precision))
    return load_checkpoint(folder / MODEL_FOLDER)


def _four_bit(config: TrainingConfig, precision: RunPrecision) -> torch.dtype | None:
    """Give the type a base in 4 bits computes in, where the method holds it so."""
    return _COMPUTE_TYPES[precision] if config.method == "qlora" else None


def set_up(checkpoint: Checkpoint, config: TrainingConfig) -> None:
    """Set a loaded model up for training, in place."""
    prepare_whisper(
        checkpoint.model,
        method=config.method,
        dropout=config.dropout,
        gradient_checkpointing=config.gradient_checkpointing,
    )


def read_base_spelling(base: str) -> dict[str, str]:
    """Read the spellings that come with a base model's tokenizer."""
    return read_spelling(resolve_folder(base))


def build_accelerator(*, device: Literal["cpu", "cuda"], precision: RunPrecision) -> Accelerator:
    """Build accelerate around the process group Ray Train has opened."""
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        step_scheduler_with_optimizer=False,
        # gradients live in the buckets that are reduced: one copy of the model less, in memory and at each step
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def quieten_libraries() -> None:
    """Keep out of the driver's output what comes with each checkpoint and stream."""
    for library in ("accelerate", "ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that its bars are off, as asked
    for place in ("exceptions", "_internal.execution.streaming_executor_state"):  # takes our errors for its own
        logging.getLogger(f"ray.data.{place}").setLevel(logging.CRITICAL)
