"""What the launcher decides before anything starts."""

import pytest

from serve import launch
from serve.settings import ServeConfig
from sottovoce.errors import ConfigError


def test_without_a_trained_model_the_embedded_one_is_served(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = launch.with_embedded_default(ServeConfig())
    assert (config.model, config.variant) == (str(launch.EMBEDDED_MODEL), "torch")
    assert (launch.EMBEDDED_MODEL / "tokenizer.json").is_file()


def test_a_trained_or_a_named_model_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "serving" / "current").mkdir(parents=True)
    assert launch.with_embedded_default(ServeConfig()) == ServeConfig()
    assert launch.with_embedded_default(ServeConfig(model="elsewhere")).model == "elsewhere"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)]
)
def test_only_this_machine_reaches_loopback(host, expected):
    assert launch.is_loopback(host) is expected


def test_without_the_token_nothing_listens_beyond_this_machine(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE"):
        launch.start_ray(host="0.0.0.0")


def test_the_service_needs_a_running_ray():
    with pytest.raises(ConfigError, match="no Ray"):
        launch.start_service(ServeConfig())


def test_the_curl_line_names_the_endpoint():
    assert "http://127.0.0.1:8000/v1/audio/transcriptions" in launch.curl_line("http://127.0.0.1:8000/v1", "sottovoce")
