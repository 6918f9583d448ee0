"""Where models are found, which of several of one name counts, and what their keys stand for."""

import json
import os
import shutil
from pathlib import Path

import pytest
from made_up_models import make_checkpoint, make_export

from serve.errors import ModelNotFoundError
from serve.models.model_files import FoundVariants, find_variants, is_hub_id
from serve.models.promotion import Promotion, promote, roll_back
from serve.models.repository import open_repository
from serve.settings import ServeConfig
from sottovoce.assets import MICRO_FOLDER
from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.variants import VariantRecord


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch):
    """These models are empty files: what is tried out is tested in test_promotion."""
    monkeypatch.setattr("serve.models.promotion._try_out", lambda _: None)


def repository(tmp_path, **settings):
    return open_repository(ServeConfig(models_folder=str(tmp_path / "models"), **settings))


def test_folders_hold_what_their_files_say(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    export = make_export(tmp_path / "export", "fp32", refused=("int8",))
    found = find_variants(str(checkpoint), str(export))
    assert found.folders == {"torch": str(checkpoint), "fp32": str(export / "fp32")}
    assert found.refused["int8"].wer == 0.5
    assert find_variants(None, str(export / "fp32")).folders == {"fp32": str(export / "fp32")}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert find_variants(str(adapter), None).folders == {"torch": str(adapter)}
    assert find_variants(str(export), str(checkpoint)) == FoundVariants()


def scored(variant: str, *, rtfx: float = 20.0) -> VariantRecord:
    return VariantRecord(
        variant=variant, wer=0.1, cer=0.1, rtfx=rtfx, reference_wer=0.1, max_wer_rise=0.01, is_servable=True,
        size_bytes=1, folder_bytes=1, num_utterances=7, versions={},
    )  # fmt: skip


def test_the_bare_name_stands_for_the_wanted_or_the_best_variant_there_is():
    records = {"fp32": scored("fp32", rtfx=20.0), "ct2-int8": scored("ct2-int8", rtfx=10.0)}
    found = FoundVariants({"torch": "a", "fp32": "b", "ct2-int8": "c"}, {"int8": None}, records)
    assert (found.default(None), found.default("torch"), found.default("int8")) == ("fp32", "torch", "int8")
    assert FoundVariants(records={"fp32": scored("fp32"), "int8": scored("int8")}).default(None) == "int8"
    assert FoundVariants(refused={"int8": None}).default(None) == "int8"
    assert FoundVariants().default(None) is None
    assert FoundVariants({"torch": "a"}).default("fp32") is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [("openai/whisper-tiny", True), ("micro", True), ("/a/b", False), ("./a", False), ("a/b/c", False), (".", False)],
)
def test_a_hub_id_is_told_from_a_path(source, expected):
    assert is_hub_id(source) is expected


def test_names_of_the_settings_count_before_promoted_ones_and_those_before_folders(tmp_path):
    first, second = make_checkpoint(tmp_path / "first"), make_checkpoint(tmp_path / "second")
    make_checkpoint(tmp_path / "models" / "main")
    assert repository(tmp_path).read()["main"].plans["torch"].folder == str(tmp_path / "models" / "main")
    promote(Promotion(name="main", checkpoint=str(first), models_folder=tmp_path / "models"))
    promoted = repository(tmp_path).read()["main"]
    assert promoted.is_promoted
    assert ".releases" in promoted.plans["torch"].folder
    pinned = repository(tmp_path, models=[{"name": "main", "checkpoint": str(second)}]).read()["main"]
    assert pinned.plans["torch"].folder == str(second)


def test_the_embedded_model_stands_in_until_there_is_another(tmp_path):
    repositories = [repository(tmp_path, embedded_until_promoted=embedded) for embedded in (True, False)]
    assert [list(one.read()) for one in repositories] == [["sottovoce"], []]
    assert repositories[0].read()["sottovoce"].plans["torch"].folder == str(MICRO_FOLDER)
    make_export(tmp_path / "models" / "sottovoce", "int8")
    assert list(repositories[0].read()["sottovoce"].plans) == ["int8"]


def test_folders_with_unusable_names_and_without_models_are_left_out(tmp_path, caplog):
    for name in ("a b", ".hidden", "empty"):
        (tmp_path / "models" / name).mkdir(parents=True)
    make_checkpoint(tmp_path / "models" / "good")
    assert list(repository(tmp_path).read()) == ["good"]
    assert "empty is not served" in caplog.text


def test_the_default_comes_first_then_names_in_order(tmp_path):
    for name in ("b", "a", "z"):
        make_checkpoint(tmp_path / "models" / name)
    assert list(repository(tmp_path, model_id="b").read()) == ["b", "a", "z"]


def test_a_key_changes_with_the_files_and_with_nothing_else(tmp_path):
    folder = make_checkpoint(tmp_path / "models" / "main")
    before = repository(tmp_path).read()["main"].plans["torch"]
    assert repository(tmp_path).read()["main"].plans["torch"] == before
    (folder / "model.safetensors").write_bytes(b"other weights")
    after = repository(tmp_path).read()["main"].plans["torch"]
    assert after.key != before.key
    assert repository(tmp_path).plan(after.key) == after
    assert repository(tmp_path).plan(before.key) == after, "what is gone is loaded as it is now"


def test_a_promoted_versions_key_stands_for_its_files_also_after_the_next_one(tmp_path):
    models = tmp_path / "models"
    keys = []
    for index in range(2):
        source = make_checkpoint(tmp_path / str(index))
        promote(Promotion(name="org/main", checkpoint=str(source), models_folder=models))
        keys.append(repository(tmp_path).read()["org/main"].plans["torch"].key)
    assert len(set(keys)) == 2
    folders = [repository(tmp_path).plan(key).folder for key in keys]
    assert [Path(folder).parent.name for folder in folders] == ["1", "2"]
    roll_back(Promotion(name="org/main", rollback=True, models_folder=models))
    assert repository(tmp_path).read()["org/main"].plans["torch"].key == keys[0]
    assert repository(tmp_path).plan(keys[1]).folder == folders[1]


def test_a_releases_key_never_gives_another_release(tmp_path):
    models = tmp_path / "models"
    keys = []
    for index in range(2):
        source = make_checkpoint(tmp_path / str(index))
        promote(Promotion(name="main", checkpoint=str(source), models_folder=models))
        keys.append(repository(tmp_path).read()["main"].plans["torch"].key)
    number, digest = keys[0].rpartition("/")[2].split("-")
    for key in (f"main@torch/{number}-0{digest}", f"main@torch/3-{digest}", f"main@fp32/{number}-{digest}"):
        with pytest.raises(ModelNotFoundError):
            repository(tmp_path).plan(key)
    record = json.loads((models / "main.json").read_text())
    record["releases"] = record["releases"][1:]  # the first was pruned while a request had it
    (models / "main.json").write_text(json.dumps(record))
    with pytest.raises(ModelNotFoundError, match=keys[0]):
        repository(tmp_path).plan(keys[0])


def test_the_key_of_a_folder_that_a_promotion_hides_stands_for_the_folder(tmp_path):
    folder = make_checkpoint(tmp_path / "models" / "main")
    before = repository(tmp_path).read()["main"].plans["torch"]
    promote(Promotion(name="main", checkpoint=str(folder), models_folder=tmp_path / "models"))
    assert repository(tmp_path).plan(before.key) == before
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFoundError):
        repository(tmp_path).plan(before.key)


def test_a_model_called_as_an_alias_is_left_out_and_the_log_says_why(tmp_path, caplog):
    make_checkpoint(tmp_path / "models" / "mine")
    make_checkpoint(tmp_path / "models" / "whisper-mine")
    promote(Promotion(name="theirs", checkpoint=str(tmp_path / "models" / "mine"), models_folder=tmp_path / "models"))
    aliased = repository(tmp_path, aliases=("whisper-mine", "theirs"))
    assert [list(aliased.read()) for _ in range(2)] == [["mine"]] * 2
    warnings = [record.message for record in caplog.records if "take the alias out" in record.message]
    assert [warning.split()[0] for warning in warnings] == ["theirs", "whisper-mine"]


def test_a_file_that_is_no_record_hides_neither_promoted_models_nor_a_folder_of_its_name(tmp_path, caplog):
    folder = make_checkpoint(tmp_path / "models" / "mine")
    promote(Promotion(name="main", checkpoint=str(folder), models_folder=tmp_path / "models"))
    (tmp_path / "models" / "mine.json").write_text("what I tried")
    (tmp_path / "models" / "notes.json").write_bytes(b"caf\xe9")
    assert list(repository(tmp_path).read()) == ["main", "mine"]
    assert "mine.json" in caplog.text
    assert "notes.json" in caplog.text


def test_nothing_steps_into_the_place_of_a_promoted_model_whose_record_is_damaged(tmp_path, caplog):
    folder = make_checkpoint(tmp_path / "models" / "sottovoce")
    promote(Promotion(checkpoint=str(folder), models_folder=tmp_path / "models"))
    key = repository(tmp_path).read()["sottovoce"].plans["torch"].key
    (tmp_path / "models" / "sottovoce.json").write_text("{")
    entry = repository(tmp_path, embedded_until_promoted=True).read()["sottovoce"]
    assert (entry.is_readable, entry.plan(None)) == (False, None)
    assert "sottovoce.json" in entry.refused[entry.default], "a service that cannot start says so"
    assert "keeps its previous version" in caplog.text
    with pytest.raises(CheckpointError):
        repository(tmp_path).plan(key)


def test_a_key_of_a_name_that_is_gone_is_not_found(tmp_path):
    for key in ("main@torch/1-abc", "main@torch/x", "main"):
        with pytest.raises(ModelNotFoundError):
            repository(tmp_path).plan(key)


def test_created_is_when_the_files_were_written_or_when_the_repository_was_opened(tmp_path):
    folder = make_checkpoint(tmp_path / "models" / "main")
    for path in folder.iterdir():
        os.utime(path, (5_000, 5_000))
    assert repository(tmp_path).read()["main"].plans["torch"].created == 5_000
    hub = repository(tmp_path, models=[{"name": "hub", "checkpoint": "openai/whisper-tiny"}])
    assert hub.read()["hub"].plans["torch"].created == hub.opened


def test_the_assistant_and_the_base_go_to_torch_alone(tmp_path):
    make_checkpoint(tmp_path / "checkpoint")
    make_export(tmp_path / "export", "int8")
    files = {"checkpoint": str(tmp_path / "checkpoint"), "export": str(tmp_path / "export")}
    model = {"name": "main", **files, "assistant": "openai/whisper-tiny", "base": "openai/whisper-small"}
    plans = repository(tmp_path, models=[model]).read()["main"].plans
    assert (plans["torch"].assistant, plans["torch"].base) == ("openai/whisper-tiny", "openai/whisper-small")
    assert (plans["int8"].assistant, plans["int8"].base) == (None, None)


def test_a_refused_variant_tells_its_rates(tmp_path):
    make_export(tmp_path / "models" / "main", "fp32", refused=("int8",))
    entry = repository(tmp_path).read()["main"]
    assert list(entry.plans) == ["fp32"]
    assert "WER 0.5000 against 0.1000" in entry.refused["int8"]


def test_a_variant_that_was_never_scored_is_not_served_and_says_so(tmp_path):
    export = make_export(tmp_path / "models" / "main", "fp32", "int8")
    (export / "int8" / "record.json").unlink()
    entry = repository(tmp_path).read()["main"]
    assert (entry.default, list(entry.plans)) == ("fp32", ["fp32"])
    assert "int8 was never scored; run jobs.export_model again" in entry.refused["int8"]


@pytest.mark.parametrize("content", [b'{"variant": "fp32"}', b'{"variant": "\xe9"}'], ids=["half", "latin-1"])
def test_one_folder_that_cannot_be_read_does_not_hide_the_others(tmp_path, caplog, content):
    export = make_export(tmp_path / "models" / "broken", "fp32")
    (export / "fp32" / "record.json").write_bytes(content)
    make_checkpoint(tmp_path / "models" / "good")
    assert list(repository(tmp_path).read()) == ["good"]
    assert "broken is not served" in caplog.text


def test_a_checkpoints_own_record_is_not_taken_for_a_variants(tmp_path):
    folder = make_checkpoint(tmp_path / "models" / "trained")
    (folder / "record.json").write_text(json.dumps({"wer": 0.2, "seed": 1}))
    assert list(repository(tmp_path).read()["trained"].plans) == ["torch"]


@pytest.mark.parametrize("gone", ["all", "its weights", "its record"])
def test_nothing_else_is_served_under_a_name_of_the_settings_when_its_files_go(tmp_path, caplog, gone):
    export = make_export(tmp_path / "export", "int8")
    source = make_checkpoint(tmp_path / "models" / "sottovoce")
    promote(Promotion(checkpoint=str(source), models_folder=tmp_path / "models"))
    ours = repository(tmp_path, model=str(export), embedded_until_promoted=True, until_promoted=str(source))
    key = ours.default_plan().key
    assert ours.default_plan().folder == str(export / "int8")
    shutil.rmtree(export / "int8" / "onnx")
    if gone == "all":
        shutil.rmtree(export)
    if gone == "its record":
        (make_export(tmp_path / "again", "int8") / "int8" / "onnx").rename(export / "int8" / "onnx")
        (export / "int8" / "record.json").write_text("{")
    entry = ours.read()["sottovoce"]
    assert (entry.is_readable, entry.plan(None)) == (False, None), "the gateway keeps what it has loaded"
    assert "sottovoce is not served: " in caplog.text
    with pytest.raises(ConfigError, match="'sottovoce' cannot be served"):
        ours.default_plan()
    with pytest.raises(ModelNotFoundError):
        ours.plan(key)


def test_what_stands_in_until_a_promotion_is_never_loaded_for_the_key_of_a_folder(tmp_path):
    folder = make_checkpoint(tmp_path / "models" / "sottovoce")
    ours = repository(tmp_path, embedded_until_promoted=True)
    key = ours.default_plan().key
    shutil.rmtree(folder)
    embedded = ours.default_plan()
    assert embedded.folder == str(MICRO_FOLDER)
    assert ours.plan(embedded.key) == embedded
    with pytest.raises(ModelNotFoundError):
        ours.plan(key)


@pytest.mark.parametrize("how", ["folder", "promoted", "until promoted"])
def test_the_embedded_model_takes_the_place_of_no_damaged_one(tmp_path, how):
    source = make_export(tmp_path / "source", "int8")
    settings = {"until_promoted": str(source)} if how == "until promoted" else {}
    if how == "folder":
        make_export(tmp_path / "models" / "sottovoce", "int8")
    if how == "promoted":
        promote(Promotion(export=str(source), models_folder=tmp_path / "models"))
    ours = repository(tmp_path, embedded_until_promoted=True, **settings)
    assert ours.default_plan().variant == "int8"
    for record in tmp_path.rglob("int8/record.json"):
        record.write_text("{")
    assert not ours.read()["sottovoce"].is_readable, "the gateway keeps what it has loaded"
    with pytest.raises(ConfigError, match=r"'sottovoce' cannot be served: .*record\.json"):
        ours.default_plan()


def test_a_record_without_its_current_release_lets_no_other_model_in(tmp_path):
    promote(Promotion(checkpoint=str(make_checkpoint(tmp_path / "source")), models_folder=tmp_path / "models"))
    path = tmp_path / "models" / "sottovoce.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"current": 7}))
    with pytest.raises(ConfigError, match="names version 7, which it does not hold; promote it again"):
        repository(tmp_path, embedded_until_promoted=True).default_plan()
