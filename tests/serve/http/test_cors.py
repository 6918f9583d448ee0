"""Pages of other origins: the preflight needs no key, and what was refused can be read, too."""

import pytest
from fake_transcriber import FakeSource
from pydantic import ValidationError
from starlette.testclient import TestClient

from serve.gateway import Gateway
from serve.settings import Limits, ServeConfig

PAGE = "https://page.example"
PATH = "/v1/audio/transcriptions"


@pytest.fixture
def call(transcriber, monkeypatch):
    """Send a request to a gateway that wants a key and allows some origins."""
    monkeypatch.setenv("SOME_KEYS", "right")

    def send(method: str, *origins: str, path: str = PATH, origin: str = PAGE, **headers: str):
        gateway = Gateway(
            transcriber, source=FakeSource(), limits=Limits(), api_keys_env="SOME_KEYS", allow_origins=origins
        )
        with TestClient(gateway.build_api()) as client:
            return client.request(method, path, headers={"origin": origin, **headers})

    return send


def preflight(call, *origins: str, origin: str = PAGE, method: str = "POST", **headers: str):
    asked = {"access-control-request-method": method, "access-control-request-headers": "authorization,x-stainless-os"}
    return call("OPTIONS", *origins, origin=origin, **asked, **headers)


def test_a_preflight_of_an_allowed_page_passes_without_a_key(call):
    response = preflight(call, "https://other.example", PAGE)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert response.headers["access-control-allow-methods"] == "GET, POST"
    assert "origin" in response.headers["vary"].lower()
    assert "access-control-allow-credentials" not in response.headers


def test_every_page_passes_where_all_are_allowed(call):
    response = preflight(call, "*")
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize(
    ("origins", "asked", "reason"),
    [
        ((PAGE,), {"origin": "https://evil.example"}, "origin"),
        ((PAGE,), {"origin": "https://page.example.evil.example"}, "origin"),
        ((PAGE,), {"origin": "null"}, "origin"),
        ((PAGE,), {"method": "DELETE"}, "method"),
        (("*",), {"access-control-request-private-network": "true"}, "private-network"),
    ],
)
def test_a_preflight_that_is_not_allowed_is_refused_in_openais_shape(call, origins, asked, reason):
    response = preflight(call, *origins, **asked)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "cors_refused")
    assert error["message"].startswith(f"Disallowed CORS {reason}; the service's setting allow_origins")


def test_a_named_page_of_the_internet_may_reach_into_the_network(call):
    response = preflight(call, PAGE, **{"access-control-request-private-network": "true"})
    assert (response.status_code, response.headers["access-control-allow-private-network"]) == (200, "true")


@pytest.mark.parametrize(("key", "status"), [("right", 200), ("wrong", 401)])
def test_a_page_may_read_answers_and_refusals(call, key, status):
    response = call("GET", PAGE, path="/v1/models", authorization=f"Bearer {key}")
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in response.headers["access-control-expose-headers"]


def test_a_page_that_is_not_allowed_may_not_read(call):
    response = call("GET", PAGE, path="/v1/models", origin="https://evil.example", authorization="Bearer right")
    assert "access-control-allow-origin" not in response.headers


def test_without_the_setting_there_are_no_headers(call):
    assert preflight(call, authorization="Bearer right").status_code == 405
    response = call("GET", path="/v1/models", authorization="Bearer right")
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert ServeConfig().allow_origins == ()


@pytest.mark.parametrize("origin", ["*", PAGE, "http://localhost:5173", "http://[::1]:3000", "app://obsidian.md"])
def test_an_origin_is_accepted(origin):
    assert ServeConfig(allow_origins=(origin,)).allow_origins == (origin,)


@pytest.mark.parametrize("origin", ["page.example", f"{PAGE}/", f"{PAGE}/path", "https://Page.example", "null", ""])
def test_what_is_no_origin_is_refused_by_name(origin):
    with pytest.raises(ValidationError, match="is not an origin; write scheme://host"):
        ServeConfig(allow_origins=(origin,))
