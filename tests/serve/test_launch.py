"""What the launcher decides before anything starts."""

import pytest

from serve import launch
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
