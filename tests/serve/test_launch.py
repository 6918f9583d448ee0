"""What the launcher decides before anything starts."""

import socket

import pytest
from ports import free_port

from serve import launch
from serve.models.repository import MICRO_FOLDER
from serve.settings import ServeConfig
from sottovoce.errors import ConfigError


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


def test_an_address_of_ipv6_stands_in_brackets():
    assert launch.base_url("::1", 8000) == "http://[::1]:8000/v1"
    assert launch.base_url("127.0.0.1", 80) == "http://127.0.0.1:80/v1"


def test_the_curl_line_names_the_endpoint():
    assert "http://127.0.0.1:8000/v1/audio/transcriptions" in launch.curl_line("http://127.0.0.1:8000/v1", "sottovoce")


def test_a_port_that_is_taken_is_said_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(.*in use.*--port"):
            launch.check_port("127.0.0.1", port)


def test_a_free_port_stays_free():
    port = free_port()
    launch.check_port("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_an_interface_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:8000"):
        launch.check_port("192.0.2.1", 8000)


def test_the_embedded_model_is_named_as_such(tmp_path):
    config = ServeConfig(models_folder=str(tmp_path), embedded_until_promoted=True)
    said = launch.describe_default(config)
    assert said.startswith("sottovoce is the embedded model micro, variant torch, in ")
    assert said.endswith("assets/micro")
    assert "\n" not in said


def test_a_model_of_the_command_line_is_named_with_its_folder(tmp_path):
    config = ServeConfig(model=str(MICRO_FOLDER), variant="torch", model_id="mine", models_folder=str(tmp_path))
    assert launch.describe_default(config).startswith("mine is the embedded model micro")


@pytest.mark.parametrize("embedded", [False, True])
def test_a_model_that_is_not_there_is_said_and_no_other_takes_its_place(tmp_path, embedded):
    missing = tmp_path / "typo" / "export" / "folder"
    config = ServeConfig(model=str(missing), models_folder=str(tmp_path), embedded_until_promoted=embedded)
    with pytest.raises(ConfigError, match=r"no int8 model to serve in .*typo"):
        launch.describe_default(config)
    with pytest.raises(ConfigError, match="no int8 model to serve in"):
        launch.describe_default(ServeConfig(models_folder=str(tmp_path)))
