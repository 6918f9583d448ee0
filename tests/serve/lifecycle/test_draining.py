"""A gateway that stops: what it has is answered, what comes is refused."""

import asyncio

import pytest
from fake_transcriber import FakeSource
from starlette.testclient import TestClient

from serve.errors import UnavailableError
from serve.gateway import Gateway
from serve.lifecycle.draining import Drain, DrainGate
from serve.settings import Limits


def test_requests_are_counted_until_their_last_byte_and_refused_once_the_drain_has_begun():
    drain = Drain()
    seen: list[int] = []

    async def routes(scope, receive, send) -> None:
        seen.append(drain.num_open)
        if scope["path"] == "/v1/audio/transcriptions":
            assert drain.begin() == 1
            with pytest.raises(UnavailableError, match="stopping; try again"):
                await gate({"type": "http", "path": "/v1/models"}, receive, send)
            await gate({"type": "http", "path": "/healthz"}, receive, send)

    gate = DrainGate(routes, drain=drain, alive_path="/healthz")
    asyncio.run(gate({"type": "http", "path": "/v1/audio/transcriptions"}, None, None))
    assert seen == [1, 1], "the request itself and the probe"
    assert drain.begin() == 0


def test_a_request_that_fails_is_not_counted_any_more():
    drain = Drain()

    async def fails(scope, receive, send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(DrainGate(fails, drain=drain, alive_path="/healthz")({"type": "http", "path": "/"}, None, None))
    assert drain.num_open == 0


def test_a_gateway_that_drains_refuses_all_but_the_probe_of_its_process(transcriber, form):
    gateway = Gateway(transcriber, source=FakeSource(), limits=Limits(), api_keys_env=None)
    with TestClient(gateway.build_api()) as client:
        assert client.post("/v1/audio/transcriptions", **form()).status_code == 200
        assert asyncio.run(gateway.drain()) == 0
        refused = client.post("/v1/audio/transcriptions", **form())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_a_probe_of_readiness_wakes_no_transcriber_that_was_scaled_to_zero(transcriber):
    gateway = Gateway(transcriber, source=FakeSource(), limits=Limits(), api_keys_env=None, wakes_transcribers=True)
    with TestClient(gateway.build_api()) as client:
        calls = len(transcriber.model_keys)
        assert client.get("/readyz").status_code == 200
        assert len(transcriber.model_keys) == calls
