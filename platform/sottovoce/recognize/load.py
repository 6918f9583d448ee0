"""Load a recognizer from a checkpoint folder or an export folder."""

from pathlib import Path

from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.source import resolve_folder
from sottovoce.model.variants import (
    FORMATS,
    TORCH,
    Device,
    ModelFormat,
    RunDevice,
    find_folder,
    read_variant_record,
    resolve_function,
)
from sottovoce.recognize.recognizer import Recognizer


def load_recognizer(
    folder: str | Path,
    *,
    variant: str = TORCH,
    num_threads: int = 1,
    device: Device = "auto",
    assistant: str | Path | None = None,
) -> Recognizer:
    """Load a model with the engine of its format.

    Args:
        folder: for ``torch`` a checkpoint folder or Hub id; else an export folder, or one variant's folder in it.
        variant: the name of a format in ``FORMATS``: ``torch``, ``fp32`` or ``int8``.
        num_threads: CPU threads that one call may use.
        device: where the model runs. auto takes a GPU where there is one and the format runs on it.
        assistant: a smaller checkpoint with the same tokenizer that drafts tokens for ``torch``: the same text, sooner;
            see ``speculative``.

    Raises:
        CheckpointError: no such variant, a missing or damaged file, a variant that the export gate refused, or an
            assistant that does not fit the model.
        ConfigError: an assistant for an exported variant, or a device that the format does not run on.
    """
    if assistant is not None and variant != TORCH:
        raise ConfigError(f"assistant {assistant} with variant {variant!r}: only variant torch takes an assistant")
    row = FORMATS.get(variant)
    if row is None:
        raise CheckpointError(folder, f"variant {variant!r} is none of {', '.join(FORMATS)}")
    run_device = _find_device(row, device)
    drafting = {} if assistant is None else {"assistant": assistant}
    load = resolve_function(row.loader)
    source = folder if variant == TORCH else _find_servable(Path(folder), variant)
    recognizer: Recognizer = load(source, variant=variant, num_threads=num_threads, device=run_device, **drafting)
    return recognizer


def _find_device(row: ModelFormat, device: Device) -> RunDevice:
    """Return where a model of a format runs.

    Raises:
        ConfigError: a device that the format does not run on.
    """
    if device == "auto":
        return "cuda" if "cuda" in row.devices and _has_gpu() else "cpu"
    if device not in row.devices:
        others = ", ".join(one.name for one in FORMATS.values() if device in one.devices)
        raise ConfigError(
            f"variant {row.name} runs on {', '.join(row.devices)}, not on {device}; on {device} run {others}"
        )
    return device


def _has_gpu() -> bool:
    import torch  # here: formats that run on CPUs alone need no torch

    return torch.cuda.is_available()


def root_folder(folder: str | Path, variant: str) -> Path:
    """Return the folder of configs and tokenizer files that ``load_recognizer`` reads.

    Raises:
        CheckpointError: no such checkpoint or variant.
    """
    return resolve_folder(folder) if variant not in FORMATS or variant == TORCH else _find(Path(folder), variant)


def _find(folder: Path, variant: str) -> Path:
    """Return the variant's own folder.

    Raises:
        CheckpointError: neither an export folder nor a variant's folder.
    """
    found = find_folder(folder, variant)
    if found is None:
        missing = folder / variant / FORMATS[variant].files[0]
        reason = f"no variant {variant} here: {missing} is missing; export it, or load variant torch"
        raise CheckpointError(folder, reason)
    return found


def _find_servable(folder: Path, variant: str) -> Path:
    """Return the variant's own folder, unless the export gate refused the variant.

    Raises:
        CheckpointError: no such variant, or one that the gate refused.
    """
    found = _find(folder, variant)
    record = read_variant_record(found)
    if record is not None and not record.is_servable:
        rates = f"WER {record.wer:.4f} against {record.reference_wer:.4f} in torch"
        raise CheckpointError(found, f"the export gate refused variant {variant}: {rates}")
    return found
