import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.publish.hub import build_api, push_checkpoint


class FakeApi:
    """Remembers what it was asked; refuses when told to."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.calls: list[tuple[str, object]] = []
        self._refuses = refuses

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        if self._refuses:
            raise OSError("no route to the Hub")
        self.calls.append(("create", (repo_id, private, exist_ok)))
        return None

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> object:
        self.calls.append(("upload", (repo_id, folder_path)))
        return commit_message


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    for name in ("config.json", "generation_config.json", "model.safetensors", "README.md"):
        (tmp_path / name).touch()
    return tmp_path


def test_without_a_token_the_error_says_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match="set HF_TOKEN"):
        build_api(None)


def test_a_checkpoint_is_uploaded_to_a_repository_made_for_it(checkpoint: Path) -> None:
    api = FakeApi()
    push_checkpoint(checkpoint, api, repo_id="me/throat", private=True)
    assert api.calls == [("create", ("me/throat", True, True)), ("upload", ("me/throat", checkpoint))]


def test_a_folder_without_its_card_is_not_pushed(checkpoint: Path) -> None:
    (checkpoint / "README.md").unlink()
    api = FakeApi()
    with pytest.raises(CheckpointError, match=r"README\.md missing"):
        push_checkpoint(checkpoint, api, repo_id="me/throat", private=True)
    assert not api.calls


def test_a_refusal_of_the_hub_names_the_repository(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="me/throat: no route"):
        push_checkpoint(checkpoint, FakeApi(refuses=True), repo_id="me/throat", private=False)


@pytest.mark.parametrize("repo_id", ["me/throat mic", "me/throat/mic", "throat--mic"])
def test_a_name_the_hub_does_not_allow_is_a_wrong_setting(checkpoint: Path, repo_id: str) -> None:
    with pytest.raises(ConfigError, match=f"repo_id '{repo_id}' is not a valid name on the Hub"):
        push_checkpoint(checkpoint, build_api("hf_no_token"), repo_id=repo_id, private=True)


@pytest.mark.parametrize("base", ["openai/whisper-small", "micro", "/home/me/base"])
def test_an_adapter_is_uploaded_where_its_base_is_on_the_hub(checkpoint: Path, base: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    values = {"peft_type": "LORA", "base_model_name_or_path": base}
    (checkpoint / "adapter_config.json").write_text(json.dumps(values))
    save_file({"weight": torch.zeros(1)}, checkpoint / "adapter_model.safetensors")
    api = FakeApi()
    if base == "openai/whisper-small":
        push_checkpoint(checkpoint, api, repo_id="me/throat", private=True)
        assert len(api.calls) == 2
        return
    with pytest.raises(CheckpointError, match="not on the Hub; merge it first"):
        push_checkpoint(checkpoint, api, repo_id="me/throat", private=True)
    assert not api.calls
