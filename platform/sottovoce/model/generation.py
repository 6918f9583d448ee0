"""Load a checkpoint's generation config so that it is complete, and so that transformers will save it again.

transformers checks these settings strictly only when it saves them, in training after the first steps. So they are
checked, cleaned and completed when a checkpoint is loaded.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperConfig

from sottovoce.errors import CheckpointError
from sottovoce.model.labels import is_english_only
from sottovoce.model.source import read_config, read_generation_config
from sottovoce.model.tokenizer import Tokenizer
from sottovoce.schema import MAX_LABEL_TOKENS

logger = logging.getLogger(__name__)

# How transformers 4.57 names settings that do not go together: in a list, or first in a sentence about one of them.
_LISTED = re.compile(r"^- `(\w+)`", re.MULTILINE)
_NAMED = re.compile(r"`(\w+)`")
_BOOKKEEPING = ("_from_model_config", "transformers_version", "_commit_hash")
_TASKS = ("translate", "transcribe")
_NOT_ENGLISH_ONLY = ("language", "task", "lang_to_id", "task_to_id")
"""What the generation of transformers refuses for an English-only model, or takes for a sign of a multilingual one."""


def load_generation_config(folder: Path, tokenizer: Tokenizer, *, source: str | Path) -> GenerationConfig:
    """Load the generation config of a checkpoint.

    Settings that transformers refuses to save are dropped, with one line in the log. Those that transformers has added
    since 2022 are taken from the tokenizer if the file lacks them: languages, tasks and special tokens.

    Args:
        folder: holds ``generation_config.json``. A setting that it lacks is taken from ``config.json``, where
            transformers had them in 2022.
        tokenizer: of the model.
        source: named in errors and in the log.

    Raises:
        CheckpointError: no such file, no JSON object, or settings that cannot be cleaned.
    """
    misplaced = misplaced_settings(WhisperConfig.from_dict(read_config(folder)))
    values = misplaced | read_generation_config(folder)
    values = {name: value for name, value in values.items() if name not in _BOOKKEEPING}
    values, dropped = _drop_unsavable(values, source)
    if dropped:
        logger.warning(
            "%s: dropped %s from its generation config, which transformers would otherwise refuse to save",
            source,
            ", ".join(f"{name}={value!r}" for name, value in dropped.items()),
        )
    return GenerationConfig(**_complete(values, tokenizer))


def misplaced_settings(config: WhisperConfig) -> dict[str, Any]:
    """Return the generation settings in a model's config.

    Whenever transformers saves the model it would move them to the generation config, over what a run has set there.
    """
    settings: dict[str, Any] = config._get_non_default_generation_parameters()
    return settings


def _complete(values: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the settings with those that the tokenizer implies."""

    def find(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(f"<|{name}|>"))

    end_id = int(tokenizer.eos_token_id)
    implied: dict[str, Any] = {
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "pad_token_id": end_id,
        "decoder_start_token_id": find("startoftranscript"),
        "no_timestamps_token_id": find("notimestamps"),
        "prev_sot_token_id": find("startofprev"),
        "max_length": MAX_LABEL_TOKENS,
        "is_multilingual": True,
    }
    if is_english_only(tokenizer):
        own = {name: value for name, value in values.items() if name not in _NOT_ENGLISH_ONLY}
        return implied | own | {"is_multilingual": False}
    languages = range(find("startoftranscript") + 1, find("translate"))
    implied["lang_to_id"] = {tokenizer.convert_ids_to_tokens(token): token for token in languages}
    implied["task_to_id"] = {task: find(task) for task in _TASKS}
    return implied | dict(values)


def _drop_unsavable(values: Mapping[str, Any], source: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings into those that transformers saves, and those that it refuses beside them.

    Raises:
        CheckpointError: transformers refuses them without naming one of them.
    """
    kept, dropped = dict(values), dict[str, Any]()
    while reason := _refusal(kept):
        names = [name for name in _LISTED.findall(reason) or _NAMED.findall(reason)[:1] if name in kept]
        if not names:
            first = reason.splitlines()[0]
            raise CheckpointError(source, f"transformers cannot use its generation_config.json: {first}")
        dropped |= {name: kept.pop(name) for name in names}
    return kept, dropped


def _refusal(values: Mapping[str, Any]) -> str:
    """Return why transformers would not save these settings; empty if it would."""
    config = GenerationConfig()
    vars(config).update(values)  # the constructor would already check them, and log what it finds
    try:
        config.validate(strict=True)
    except (ValueError, TypeError, AttributeError) as error:
        return str(error) or repr(error)
    return ""
