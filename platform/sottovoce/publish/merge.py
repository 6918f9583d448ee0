"""Merge an adapter and its base model into one checkpoint."""

import logging
import shutil
from pathlib import Path

from pydantic import ValidationError

from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.adapter import ADAPTER_CONFIG_FILE, is_adapter
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.model.source import resolve_folder
from sottovoce.publish.model_card import write_model_card
from sottovoce.train.record import RECORD_FILE, TrainingRecord

logger = logging.getLogger(__name__)


def merge_to_folder(source: str | Path, output: Path, *, base: str | None) -> None:
    """Write a complete checkpoint in float32, with a model card if the run's record is beside the adapter.

    Args:
        source: folder or Hub id of the adapter.
        output: folder of the checkpoint; it appears once all files are written.
        base: folder or Hub id of the base model; None takes the one that the adapter names.

    Raises:
        CheckpointError: no adapter there, or a base that is missing or is not the one it was trained on.
        ConfigError: the output exists.
    """
    folder = resolve_folder(source)
    if not is_adapter(folder):
        is_model = (folder / "config.json").is_file()
        reason = "it is a whole model, not an adapter" if is_model else f"it holds no {ADAPTER_CONFIG_FILE}"
        raise CheckpointError(source, f"{reason}, so there is nothing to merge; name the folder checkpoint of a run")
    if output.exists():
        raise ConfigError(f"{output} is there already: name another --output, or delete it")
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_checkpoint(load_checkpoint(source, base=base), partial)
    record = _read_record(folder.parent / RECORD_FILE)  # a run's record is beside its checkpoint's folder
    if record is not None:
        write_model_card(record, partial, name=output.name, is_merged=True)
    partial.replace(output)
    logger.info("merged %s into %s", source, output)


def _read_record(path: Path) -> TrainingRecord | None:
    """Read the record of the run that trained the adapter; None if there is none."""
    try:
        return TrainingRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
