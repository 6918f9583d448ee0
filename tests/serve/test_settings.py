"""The service's settings: what they refuse, and the file for a cluster."""

import pytest
import yaml
from pydantic import ValidationError

from jobs.serve_model import ServeJob
from serve.settings import Autoscaling, Limits, NamedModel, ServeConfig, ServedFiles
from sottovoce.config import read_recipe


def test_the_config_file_names_an_importable_app_with_valid_arguments(root):
    config = yaml.safe_load((root / "serve" / "config.yaml").read_text(encoding="utf-8"))
    (application,) = config["applications"]
    assert application["import_path"] == "serve.app:build_app"
    assert config["http_options"]["host"] == "127.0.0.1"
    service = ServeConfig.model_validate(application["args"])
    assert config["http_options"]["request_timeout_s"] > service.limits.longest_deadline_s


def test_the_deadline_grows_with_the_audio_and_the_memory_must_hold_the_longest():
    assert Limits(deadline_s=10.0, deadline_per_audio_s=2.0, max_duration_s=60.0).longest_deadline_s == 130.0
    with pytest.raises(ValidationError, match="max_decoded_bytes 1000 cannot hold 60 s of audio; raise it to 2560000"):
        Limits(max_decoded_bytes=1000, max_duration_s=60.0)


def test_the_models_that_the_config_file_suggests_fit_into_its_memory(root):
    lines = (root / "serve" / "config.yaml").read_text(encoding="utf-8").replace("# models:", "models:")
    uncommented = lines.replace("      #   - {", "        - {")
    service = ServeConfig.model_validate(yaml.safe_load(uncommented)["applications"][0]["args"])
    num_parameters = {
        "openai/whisper-tiny": 37_760_640,
        "openai/whisper-small": 241_734_912,
        "openai/whisper-medium": 763_857_920,
        "openai/whisper-large-v2": 1_543_304_960,
    }
    assert len(service.models) == 2
    for model in service.models:
        weights = [num_parameters[source] for source in (model.base or model.checkpoint, model.assistant) if source]
        assert 4 * sum(weights) + 2**28 < service.max_model_bytes, f"{model.name}: float32, two tokenizers"


def test_a_recipe_that_says_nothing_of_it_keeps_what_the_job_has_set(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("service:\n  num_threads: 2\n  transcriber_scaling:\n    min_replicas: 2\n", encoding="utf-8")
    service = read_recipe(ServeJob, path).service
    assert (service.embedded_until_promoted, service.num_threads) == (True, 2)
    assert service.transcriber_scaling == Autoscaling(min_replicas=2, max_replicas=4)


def test_an_unknown_setting_and_a_crossed_range_are_refused():
    with pytest.raises(ValidationError):
        ServeConfig.model_validate({"modle": "x"})
    with pytest.raises(ValidationError, match="min_replicas 3 is above max_replicas 2; lower the first or raise"):
        Autoscaling(min_replicas=3, max_replicas=2)


def test_transcribers_may_scale_to_zero_and_gateways_may_not():
    asleep = Autoscaling(min_replicas=0)
    assert ServeConfig(transcriber_scaling=asleep).transcriber_scaling.min_replicas == 0
    with pytest.raises(ValidationError, match=r"gateway_scaling.min_replicas is 0.*use at least 1"):
        ServeConfig(gateway_scaling=asleep)


def test_the_one_model_of_the_command_line_is_a_checkpoint_or_an_export():
    (torch,) = ServeConfig(model="folder", variant="torch").pinned()
    (int8,) = ServeConfig(model="folder", variant="int8").pinned()
    (either,) = ServeConfig(model="folder").pinned()
    assert (torch.name, torch.checkpoint, torch.export, torch.variant) == ("sottovoce", "folder", None, "torch")
    assert (int8.name, int8.checkpoint, int8.export, int8.variant) == ("sottovoce", None, "folder", "int8")
    assert (either.checkpoint, either.export, either.variant) == ("folder", "folder", None)
    assert ServeConfig().pinned() == ()


def test_a_hub_id_stays_and_a_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    files = ServedFiles(checkpoint="openai/whisper-tiny", export="model").resolved()
    assert (files.checkpoint, files.export) == ("openai/whisper-tiny", str(tmp_path / "model"))


def test_a_model_without_files_is_refused():
    with pytest.raises(ValidationError, match="checkpoint, an export, or both"):
        ServedFiles(variant="int8")


@pytest.mark.parametrize("name", ["a@int8", "", "/a", "a/", "a b", "../a", "a//b", "größe"])
def test_a_name_that_is_no_address_or_looks_like_a_variant_is_refused(name):
    with pytest.raises(ValidationError, match="model name"):
        NamedModel(name=name, checkpoint="x")


@pytest.mark.parametrize(
    "settings",
    [
        {"models": [{"name": "a", "export": "x"}, {"name": "a", "checkpoint": "y"}]},
        {"model": "x", "models": [{"name": "sottovoce", "export": "y"}]},
        {"models": [{"name": "whisper-1", "export": "x"}]},
        {"model_id": "whisper-1"},
    ],
    ids=["twice", "twice-with-the-default", "as-an-alias", "default-as-an-alias"],
)
def test_two_models_of_one_name_are_refused(settings):
    with pytest.raises(ValidationError, match=r"two models are called .*the aliases .* must all differ"):
        ServeConfig.model_validate(settings)
