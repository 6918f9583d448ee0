"""Load a recognizer from a checkpoint folder or an export folder."""

from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig, WhisperTokenizerFast

from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.checkpoint import load_checkpoint, read_model_config, resolve_folder
from sottovoce.model.context import AudioContext
from sottovoce.model.variants import VARIANTS, Variant, onnx_path, read_variant_record
from sottovoce.model.vocabulary import build_vocabulary
from sottovoce.recognize.onnx_engine import OnnxRecognizer, load_session
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.torch_engine import TorchRecognizer


def load_recognizer(
    folder: str | Path, *, variant: str = "torch", num_threads: int = 1, assistant: str | Path | None = None
) -> Recognizer:
    """Load an engine with its model, on CPU cores.

    Args:
        folder: for ``torch`` a checkpoint folder or Hub id; else an export folder, or one variant's folder in it.
        variant: ``torch``, ``fp32`` or ``int8``.
        num_threads: threads one call may use.
        assistant: a smaller checkpoint with the same tokenizer that writes ahead, for ``torch`` alone: the same text,
            sooner; see ``speculative``.

    Raises:
        CheckpointError: no such variant, a file that is missing or damaged, a variant the export gate refused, or an
            assistant that cannot help this model.
        ConfigError: an assistant for an exported variant.
    """
    if variant == "torch":
        helper = None if assistant is None else load_checkpoint(assistant)
        return TorchRecognizer(load_checkpoint(folder), num_threads=num_threads, assistant=helper)
    if assistant is not None:
        raise ConfigError(f"assistant {assistant} with variant {variant!r}: only variant torch takes an assistant")
    known = next((name for name in VARIANTS if name == variant), None)
    if known is None:
        raise CheckpointError(folder, f"variant {variant!r} is none of torch, {', '.join(VARIANTS)}")
    return _load_onnx(_find_variant(Path(folder), known), known, num_threads=num_threads)


def load_torch_recognizer(
    folder: str | Path,
    *,
    device: str,
    dtype: torch.dtype = torch.float32,
    max_batch_size: int = 16,
    assistant: str | Path | None = None,
) -> TorchRecognizer:
    """Load the torch engine on a device, as in ``device="cuda", dtype=torch.float16``, and its assistant beside it.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded, or an assistant that cannot help this model.
    """
    checkpoint = load_checkpoint(folder)
    helper = None if assistant is None else load_checkpoint(assistant)
    for loaded in (checkpoint, helper) if helper is not None else (checkpoint,):
        nn.Module.to(loaded.model, device=device, dtype=dtype)
    return TorchRecognizer(checkpoint, max_batch_size=max_batch_size, assistant=helper)


def root_folder(folder: str | Path, variant: str) -> Path:
    """Find the folder with the configs and tokenizer files that ``load_recognizer`` reads.

    Raises:
        CheckpointError: no such checkpoint or variant.
    """
    known = next((name for name in VARIANTS if name == variant), None)
    return resolve_folder(folder) if known is None else _find_variant(Path(folder), known)


def _find_variant(folder: Path, variant: Variant) -> Path:
    """Find a variant's own folder.

    Raises:
        CheckpointError: neither an export folder nor a variant's folder.
    """
    for candidate in (folder / variant, folder):
        if onnx_path(candidate, "encoder_model", variant).is_file():
            return candidate
    missing = onnx_path(folder / variant, "encoder_model", variant)
    raise CheckpointError(folder, f"no variant {variant} here: {missing} is missing; export it, or load variant torch")


def _load_onnx(folder: Path, variant: Variant, *, num_threads: int) -> OnnxRecognizer:
    record = read_variant_record(folder)
    if record is not None and not record.is_servable:
        rates = f"WER {record.wer:.4f} against {record.reference_wer:.4f} in torch"
        reason = f"the export gate refused variant {variant}: {rates}"
        raise CheckpointError(folder, reason)
    config = read_model_config(folder)
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(folder, "tokenizer.json is missing; export the checkpoint again")
    try:
        tokenizer = WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(folder, f"{error}") from error
    return OnnxRecognizer(
        encoder=load_session(onnx_path(folder, "encoder_model", variant), num_threads=num_threads),
        decoder=load_session(onnx_path(folder, "decoder_model_merged", variant), num_threads=num_threads),
        vocabulary=build_vocabulary(tokenizer, generation, source=str(folder)),
        context=AudioContext.of(config),
        variant=variant,
    )
