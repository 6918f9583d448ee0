"""Promoting and rolling back: what is copied, what is refused, what stays visible."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve.models.promotion import Promotion, change_model, promote, roll_back
from serve.models.registry import read_record, release_folder
from sottovoce.errors import CheckpointError, ConfigError, ExportGateError
from sottovoce.model.variants import read_variant_record, write_variant_record


@pytest.fixture
def no_trial(monkeypatch):
    """Leave the trial out, which takes seconds, where it is not what is tested."""
    monkeypatch.setattr("serve.models.promotion._try_out", lambda _: None)


def refuse(export: Path, variant: str, folder: Path) -> Path:
    """Copy an export whose gate refused one variant."""
    shutil.copytree(export, folder)
    record = read_variant_record(folder / variant)
    write_variant_record(record.model_copy(update={"is_servable": False, "wer": 0.5}), folder / variant)
    return folder


@pytest.fixture
def promotion(tiny_checkpoint, tiny_export, tmp_path) -> Promotion:
    return Promotion(
        name="main", checkpoint=str(tiny_checkpoint), export=str(tiny_export), models_folder=tmp_path / "models"
    )


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_release_holds_copies_of_what_is_served_and_its_record_says_whence(promotion, no_trial, tiny_checkpoint):
    record = promote(promotion)
    folder = release_folder(promotion.models_folder, "main", 1)
    assert {"checkpoint/model.safetensors", "export/int8/onnx/encoder_model_int8.onnx"} <= set(files(folder))
    assert record == read_record(promotion.models_folder, "main")
    (release,) = record.releases
    assert (release.variant, release.checkpoint, release.replaces) == ("int8", str(tiny_checkpoint), None)
    assert change_model(promotion).releases[1].replaces == 1
    assert not list(folder.parent.glob(".*")), "no draft is left"


def test_rolling_back_goes_to_what_was_there_before_again_and_again(promotion, no_trial):
    for _ in range(3):
        promote(promotion)
    back = promotion.model_copy(update={"checkpoint": None, "export": None, "rollback": True})
    assert change_model(back).current == 2
    assert promote(promotion).releases[-1].replaces == 2
    assert [roll_back(back).current for _ in range(2)] == [2, 1]
    with pytest.raises(ConfigError, match="nothing before version 1"):
        roll_back(back)
    assert read_record(promotion.models_folder, "main").current == 1


def test_rolling_back_a_name_that_was_never_promoted_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing was promoted under 'main' in .*; name the service's own name and"):
        change_model(Promotion(name="main", rollback=True, models_folder=tmp_path))


def test_old_releases_are_removed_but_never_the_one_to_go_back_to(promotion, no_trial):
    few = promotion.model_copy(update={"keep": 2, "checkpoint": None})
    back = few.model_copy(update={"export": None, "rollback": True})
    for _ in range(4):
        promote(few)
    releases = release_folder(few.models_folder, "main", 1).parent
    assert sorted(folder.name for folder in releases.iterdir()) == ["3", "4"]
    assert [one.version for one in read_record(few.models_folder, "main").releases] == [3, 4]
    roll_back(back)
    assert [one.version for one in promote(few).releases] == [3, 4, 5], "3 is what 5 replaced"
    assert sorted(folder.name for folder in releases.iterdir()) == ["3", "4", "5"]


def test_drafts_of_promotions_that_were_killed_are_removed_after_a_day(promotion, no_trial):
    releases = release_folder(promotion.models_folder, "main", 1).parent
    day_ago = time.time() - 90_000
    for name, written in ((".77-5", day_ago), (".78-6", time.time()), (".snapshot", day_ago)):
        (releases / name).mkdir(parents=True)
        os.utime(releases / name, (written, written))
    promote(promotion)
    assert sorted(folder.name for folder in releases.iterdir()) == [".78-6", ".snapshot", "1"]


def test_a_variant_that_was_never_scored_is_not_promoted(promotion, no_trial, tiny_export, tmp_path):
    shutil.copytree(tiny_export, tmp_path / "unscored")
    (tmp_path / "unscored" / "int8" / "record.json").unlink()
    unscored = promotion.model_copy(update={"export": str(tmp_path / "unscored"), "checkpoint": None})
    with pytest.raises(CheckpointError, match=r"int8 was never scored; run jobs\.export_model again"):
        promote(unscored.model_copy(update={"variant": "int8"}))
    assert promote(unscored).releases[0].variant == "fp32"
    assert not (release_folder(promotion.models_folder, "main", 1) / "export" / "int8").exists()


def test_a_refused_variant_is_not_promoted_and_tells_its_rates(promotion, no_trial, tiny_export, tmp_path):
    refused = refuse(tiny_export, "int8", tmp_path / "refused")
    with pytest.raises(ExportGateError, match=r"int8 scores WER 0\.5000 against 0\.1000"):
        promote(promotion.model_copy(update={"export": str(refused), "variant": "int8"}))
    assert not promotion.models_folder.exists()
    record = promote(promotion.model_copy(update={"export": str(refused), "variant": "fp32"}))
    assert record.releases[0].variant == "fp32"
    assert not (release_folder(promotion.models_folder, "main", 1) / "export" / "int8").exists()


def test_an_export_refused_in_every_variant_is_not_promoted(promotion, no_trial, tiny_export, tmp_path):
    refused = refuse(tiny_export, "int8", tmp_path / "refused")
    shutil.rmtree(refused / "fp32")
    with pytest.raises(ExportGateError):
        promote(promotion.model_copy(update={"export": str(refused), "checkpoint": None}))


def test_a_folder_without_a_model_is_not_promoted(promotion, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no model that could be served: .*config\.json .* such as int8"):
        promote(promotion.model_copy(update={"export": str(tmp_path), "checkpoint": None}))
    with pytest.raises(CheckpointError, match="/nowhere: there is no such folder"):
        promote(promotion.model_copy(update={"export": "/nowhere", "checkpoint": None}))
    with pytest.raises(CheckpointError, match="it holds no torch, only fp32, int8; name one of these"):
        promote(promotion.model_copy(update={"checkpoint": None, "variant": "torch"}))


def test_what_fails_its_trial_does_not_become_visible(promotion, tiny_export, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_export, broken)
    (broken / "int8" / "onnx" / "encoder_model_int8.onnx").write_bytes(b"not a graph")
    with pytest.raises(CheckpointError):
        promote(promotion.model_copy(update={"export": str(broken), "variant": "int8"}))
    assert read_record(promotion.models_folder, "main") is None
    assert not list(promotion.models_folder.rglob("*.onnx")), "its copy is gone too"


DAMAGED = (
    "checkpoint/model.safetensors",
    "checkpoint/tokenizer.json",
    "checkpoint/generation_config.json",
    "checkpoint/vocab.json",
    "export/fp32/onnx/encoder_model.onnx",
    "export/fp32/onnx/decoder_model_merged.onnx",
    "export/int8/onnx/encoder_model_int8.onnx",
    "export/int8/onnx/decoder_model_int8.onnx",
    "export/int8/onnx/decoder_with_past_model_int8.onnx",
    "export/int8/onnx/decoder_model_merged_int8.onnx",
    "export/int8/config.json",
    "export/int8/tokenizer.json",
    "export/int8/special_tokens_map.json",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGED)
def test_a_model_with_a_truncated_file_is_not_promoted_whichever_file_it_is(
    tiny_checkpoint, tiny_export, tmp_path, name
):
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    shutil.copytree(tiny_export, tmp_path / "export")
    damaged = tmp_path / name
    os.truncate(damaged, damaged.stat().st_size * 2 // 3)
    promotion = Promotion(
        name="main",
        checkpoint=str(tmp_path / "checkpoint"),
        export=str(tmp_path / "export"),
        models_folder=tmp_path / "models",
    )
    with pytest.raises(CheckpointError):
        promote(promotion)
    assert read_record(promotion.models_folder, "main") is None


def test_every_variant_of_a_whole_model_is_tried_before_it_is_promoted(promotion, caplog):
    caplog.set_level("INFO")
    assert promote(promotion).current == 1
    tried = [record.getMessage() for record in caplog.records if record.getMessage().endswith(" decodes")]
    assert tried == ["variant torch decodes", "variant fp32 decodes", "variant int8 decodes"]


@pytest.mark.parametrize("fails", ["pathlib.Path.mkdir", "shutil.copy2", "serve.models.registry.atomic_write"])
def test_a_models_folder_that_is_full_is_one_sentence_and_leaves_nothing(promotion, no_trial, monkeypatch, fails):
    promote(promotion)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(fails, refuse)
        with pytest.raises(
            ConfigError, match=r"the models folder .*models cannot be written \(No space left"
        ) as raised:
            change_model(promotion)
    assert "\n" not in str(raised.value)
    assert read_record(promotion.models_folder, "main").current == 1
    assert not list(promotion.models_folder.rglob(".releases/main/.*")), "no draft is left"


@pytest.mark.parametrize(
    "settings",
    [{}, {"checkpoint": "x", "rollback": True}, {"export": "x", "rollback": True}, {"checkpoint": "x", "name": "a@b"}],
    ids=["nothing", "both", "both-export", "name"],
)
def test_a_promotion_names_files_or_asks_for_a_rollback(settings):
    with pytest.raises(ValidationError):
        Promotion(**settings)


def test_an_alias_is_not_promoted_since_requests_for_it_mean_another_model():
    with pytest.raises(ValidationError, match=r"'whisper-1' is an alias.*promoted as 'sottovoce'"):
        Promotion(name="whisper-1", checkpoint="x")


def test_a_releases_digest_is_of_its_files(promotion, no_trial, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("serve.models.promotion.time.time_ns", lambda: 7)
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    one = promotion.model_copy(update={"checkpoint": str(source)})
    first, second = promote(one).releases[-1], promote(one).releases[-1]
    (source / "config.json").write_text((source / "config.json").read_text() + " ")
    third = promote(one).releases[-1]
    shutil.copytree(promotion.export, tmp_path / "export")
    graph = tmp_path / "export" / "int8" / "onnx" / "encoder_model_int8.onnx"
    graph.write_bytes(graph.read_bytes() + b" ")
    fourth = promote(one.model_copy(update={"export": str(tmp_path / "export")})).releases[-1]
    assert first.digest == second.digest
    assert len({second.digest, third.digest, fourth.digest}) == 3
