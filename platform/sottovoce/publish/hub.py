"""Push a checkpoint to the Hugging Face Hub."""

import logging
from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.adapter import ADAPTER_WEIGHTS_FILE, is_adapter, read_adapter_base
from sottovoce.model.source import MICRO

logger = logging.getLogger(__name__)

_NEEDED = ("config.json", "generation_config.json", "README.md")


class HubApi(Protocol):
    """The part of ``huggingface_hub.HfApi`` that is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        """Create a model repository if it does not exist."""

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> object:
        """Upload every file."""


def build_api(token: str | None) -> HubApi:
    """Build a client of the Hub with a token.

    Raises:
        ConfigError: no token.
    """
    if not token:
        raise ConfigError("pushing needs a token with write access: set HF_TOKEN, from huggingface.co/settings/tokens")
    return HfApi(token=token)


def push_checkpoint(folder: Path, api: HubApi, *, repo_id: str, private: bool) -> None:
    """Upload a checkpoint with its card.

    Raises:
        CheckpointError: a file is missing, an adapter's base is not on the Hub, or the Hub refuses the upload.
        ConfigError: a name that the Hub does not allow.
    """
    missing = [name for name in (*_NEEDED, _weights_file(folder)) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(folder, f"{', '.join(missing)} missing; push the checkpoint folder of a training run")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a Whisper trained with Sottovoce")
    except HFValidationError as error:
        raise ConfigError(
            f"repo_id {repo_id!r} is not a valid name on the Hub; a valid one is me/whisper-mine: {error}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(folder, f"the Hub refuses the upload to {repo_id}: {error}") from error
    logger.info("pushed %s to %s", folder, repo_id)


def _weights_file(folder: Path) -> str:
    """Return the name of the file that every complete checkpoint of this kind has.

    Raises:
        CheckpointError: an adapter whose base is not on the Hub.
    """
    if is_adapter(folder):
        base = read_adapter_base(folder).name
        if base == MICRO or Path(base).is_absolute():
            raise CheckpointError(
                folder,
                f"it is an adapter, and its base {base} is not on the Hub; merge it first: "
                "python -m jobs.merge_adapter",
            )
        return ADAPTER_WEIGHTS_FILE
    index = "model.safetensors.index.json"
    return index if (folder / index).is_file() else "model.safetensors"
