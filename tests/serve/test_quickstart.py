"""Which model is served after a quickstart, and that a quickstart replaces none that is promoted."""

import socket
from pathlib import Path

import pytest
from made_up_models import make_checkpoint, make_export

from jobs import quickstart as quickstart_job
from jobs import serve_model as serve_job
from serve.launch import describe_default
from serve.models.promotion import Promotion, promote
from serve.models.repository import open_repository
from serve.quickstart import promote_export, serve_command, with_own_models, with_quickstart
from serve.settings import QUICKSTART_FOLDER, ServeConfig
from sottovoce.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch):
    """These models are empty files: what is tried out is tested in test_promotion."""
    monkeypatch.setattr("serve.models.promotion._try_out", lambda _: None)


@pytest.fixture
def config(tmp_path) -> ServeConfig:
    """Settings of ``make serve``, whose own models folder is empty."""
    return ServeConfig(models_folder=str(tmp_path / "models"), embedded_until_promoted=True)


def quickstart(folder: Path, number: int = 0) -> None:
    """Do what a quickstart does with the model it has made."""
    checkpoint = make_checkpoint(folder / f"checkpoint{number}")
    export = make_export(folder / f"export{number}", "fp32", "int8")
    promote_export(with_own_models(ServeConfig(), folder), checkpoint=str(checkpoint), export=export)


def served_folder(config: ServeConfig) -> str:
    plan = open_repository(config).read()["sottovoce"].plan(None)
    assert plan is not None
    return plan.folder


def test_a_quickstart_writes_into_its_own_models_folder_only(tmp_path, config):
    folder = tmp_path / "quickstart"
    quickstart(folder)
    assert served_folder(with_own_models(config, folder)).startswith(str(folder / "models"))
    assert not Path(config.models_folder).exists()


def test_the_service_of_a_quickstart_takes_no_other_model(tmp_path, config):
    own = with_own_models(config.model_copy(update={"model": "elsewhere"}), tmp_path / "quickstart")
    assert (own.model, own.models_folder) == (None, str(tmp_path / "quickstart" / "models"))


def test_without_a_quickstart_the_settings_stay(tmp_path, config):
    assert with_quickstart(config, tmp_path / "quickstart") == config


def test_the_last_quickstart_is_served_until_something_is_promoted(tmp_path, config):
    folder = tmp_path / "quickstart"
    quickstart(folder)
    after = with_quickstart(config, folder)
    release = f"{folder}/models/.releases/sottovoce/1/export/int8"
    assert describe_default(after).startswith(f"sottovoce is variant int8 in {release}: onnx/encoder_model_int8.onnx ")
    promote(Promotion(export=str(make_export(tmp_path / "mine", "int8")), models_folder=Path(config.models_folder)))
    assert served_folder(after).startswith(config.models_folder)


def test_a_model_of_the_command_line_comes_before_the_quickstarts(tmp_path, config):
    quickstart(tmp_path / "quickstart")
    mine = make_export(tmp_path / "mine", "int8")
    named = with_quickstart(config.model_copy(update={"model": str(mine)}), tmp_path / "quickstart")
    assert describe_default(named).startswith(f"sottovoce is variant int8 in {mine}/int8: ")


def test_a_service_that_runs_keeps_its_model_when_another_quickstart_ends(tmp_path, config):
    folder = tmp_path / "quickstart"
    quickstart(folder)
    running = with_quickstart(config, folder)
    before = open_repository(running).read()["sottovoce"]
    quickstart(folder, 1)
    assert open_repository(running).read()["sottovoce"] == before
    assert served_folder(with_quickstart(config, folder)).startswith(f"{folder}/models/.releases/sottovoce/2/")


def test_a_damaged_record_hides_the_quickstart_and_nothing_else(tmp_path, config):
    quickstart(tmp_path / "quickstart")
    (tmp_path / "quickstart" / "models" / "sottovoce.json").write_text("{", encoding="utf-8")
    assert with_quickstart(config, tmp_path / "quickstart") == config


def test_a_model_that_the_gate_refused_is_said_before_anything_starts(tmp_path, config):
    refused = make_export(tmp_path / "mine", refused=("int8",))
    with pytest.raises(ConfigError, match="'sottovoce' cannot be served: variant int8 scores WER"):
        describe_default(config.model_copy(update={"model": str(refused)}))


def test_the_command_names_the_folder_where_it_is_another(tmp_path):
    assert serve_command(QUICKSTART_FOLDER) == "make serve"
    assert serve_command(Path("runs/other")) == "python -m jobs.serve_model --quickstart-folder runs/other"


@pytest.mark.parametrize(
    ("job", "config_class", "starts_ray"),
    [
        (quickstart_job, quickstart_job.QuickstartJob, "start_ray"),
        (serve_job, serve_job.ServeJob, "run_service"),
    ],
)
def test_a_port_that_is_taken_stops_both_jobs_before_anything_is_done(
    tmp_path, monkeypatch, job, config_class, starts_ray
):
    monkeypatch.setattr(job, "setup_logging", lambda: None)
    monkeypatch.setattr(job, starts_ray, lambda *_, **__: pytest.fail("Ray was started"))
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            job.main(config_class(port=port))
    assert list(tmp_path.iterdir()) == []
