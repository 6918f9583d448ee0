"""What a worker starts with: the model set up for training, and the accelerator around it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, resolve_folder
from sottovoce.model.context import AudioContext, set_audio_context
from sottovoce.schema import Utterance
from sottovoce.text.normalize import read_spelling
from sottovoce.train.objective import prepare_whisper
from sottovoce.train.settings import TrainingConfig
from sottovoce.train.state import MODEL_FOLDER


def load_base(config: TrainingConfig, utterances: Sequence[Utterance]) -> Checkpoint:
    """Load the base model and write into its configs what this run makes of it: context, language, task.

    Raises:
        CheckpointError: no such model.
    """
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


def load_resumed(folder: Path) -> Checkpoint:
    """Load the model of a run's own checkpoint."""
    return load_checkpoint(folder / MODEL_FOLDER)


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


def build_accelerator(*, device: Literal["cpu", "cuda"], precision: Literal["fp16", "bf16", "fp32"]) -> Accelerator:
    """Build accelerate around the process group Ray Train has opened."""
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        step_scheduler_with_optimizer=False,
        # gradients live in the buckets that are reduced: one copy of the model less, in memory and at each step
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
