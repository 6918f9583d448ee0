"""What a start finds out before anything runs, and what it says of a deployment that failed."""

import shutil
from types import SimpleNamespace

import pytest

from serve.lifecycle import starting
from serve.lifecycle.starting import check_default_files, explain_failure
from serve.settings import ServeConfig
from sottovoce.errors import CheckpointError


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("part", ["encoder_model", "decoder_model_merged"])
def test_a_truncated_export_is_found_by_its_size_before_anything_starts(tiny_export, tmp_path, part):
    shutil.copytree(tiny_export, tmp_path / "export")
    config = ServeConfig(model=str(tmp_path / "export"), variant="int8", models_folder=str(tmp_path / "models"))
    check_default_files(config)
    cut(tmp_path / "export" / "int8" / "onnx" / f"{part}_int8.onnx")
    with pytest.raises(CheckpointError, match=r"bytes: one is truncated; copy the folder again, or run jobs"):
        check_default_files(config)


def test_a_truncated_checkpoint_is_found_by_its_header(tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    config = ServeConfig(model=str(tmp_path / "checkpoint"), variant="torch", models_folder=str(tmp_path / "models"))
    check_default_files(config)
    cut(tmp_path / "checkpoint" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        check_default_files(config)


MESSAGE = """The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:sottovoce:Transcriber.initialize_and_get_metadata() (pid=1, ip=10.0.0.1)
  File "replica.py", line 1, in initialize_and_get_metadata
RuntimeError: Traceback (most recent call last):
  File "loading.py", line 1, in load
serve.errors.ModelLoadError: the model 'sottovoce' cannot be loaded now: it needs 9 bytes
"""


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["waiting", MESSAGE], "the model 'sottovoce' cannot be loaded now: it needs 9 bytes (ModelLoadError)"),
        (["waiting"], "Ray's dashboard and the logs in /tmp/ray/session_latest/logs/serve say why"),
        (None, "Ray's dashboard and the logs in /tmp/ray/session_latest/logs/serve say why"),
    ],
)
def test_a_failed_deployment_is_explained_by_its_last_error(monkeypatch, messages, reason):
    deployments = {str(number): SimpleNamespace(message=text) for number, text in enumerate(messages or ())}
    applications = {} if messages is None else {"app": SimpleNamespace(deployments=deployments)}
    monkeypatch.setattr(starting.ray_serve, "status", lambda: SimpleNamespace(applications=applications))
    assert explain_failure("app") == reason
