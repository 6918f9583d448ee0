"""A models folder that cannot be read or written is said in one sentence, and everything stays as it is."""

import errno
import os
import shutil

import pytest

from serve.models import promotion
from serve.models.promotion import Promotion, change_model
from serve.models.storage import check_readable, explained_writes
from sottovoce.errors import CheckpointError, ConfigError


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.onnx")


def half_copied(*_: object, **__: object) -> None:
    raise shutil.Error([("a", "b", f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: 'b'")])


@pytest.mark.parametrize("failure", [no_space, half_copied])
def test_a_full_models_folder_is_said_and_leaves_no_draft(tiny_export, tmp_path, monkeypatch, failure):
    monkeypatch.setattr(promotion.shutil, "copytree", failure)
    with pytest.raises(ConfigError, match=r"models cannot be written \(No space left on device\); make room, or name"):
        change_model(Promotion(export=str(tiny_export), models_folder=tmp_path / "models"))
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_models_folder_that_cannot_be_written_is_said(tmp_path):
    said = pytest.raises(ConfigError, match=r"cannot be written \(Read-only file system\); let this user write it")
    with said, explained_writes(tmp_path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_file_where_the_models_folder_should_be_is_said(tiny_export, tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(ConfigError, match=r"models cannot be written \(.*--models-folder"):
        change_model(Promotion(export=str(tiny_export), models_folder=tmp_path / "models"))
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        check_readable(tmp_path / "models")


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (CheckpointError(tmp_path, "damaged"), OSError(errno.EIO, "bad sector"), KeyError("bug")):
        with pytest.raises(type(error)) as caught, explained_writes(tmp_path):
            raise error
        assert caught.value is error


def test_a_models_folder_that_must_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    check_readable(tmp_path)
    check_readable(tmp_path / "none")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be read"):
        check_readable(tmp_path)
