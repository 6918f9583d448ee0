"""The proxy's middleware, around an application that behaves as Serve's proxy does when gateways die."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from serve.errors import AddressLimitError, CrowdedError, DecodedAudioError, OverloadedError, RateLimitError
from serve.http.problems import CROWDED_HEADER, problem_response
from serve.lifecycle import crowd, resending
from serve.lifecycle.crowd import MAX_WORKING_VARIABLE, Crowd
from serve.lifecycle.resending import Resending, proxy_middleware

BODY = [b"first part, ", b"second part"]
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
END = {"type": "http.response.body", "body": b"answered"}


class Gateways:
    """What Serve's proxy does for one attempt after the other."""

    def __init__(self, *attempts: Callable[..., Any]) -> None:
        self.attempts = list(attempts)
        self.bodies: list[bytes] = []
        self.request_ids: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        self.request_ids.append(dict(scope["headers"])[b"x-request-id"])
        self.bodies.append(b"")
        attempt = self.attempts.pop(0) if len(self.attempts) > 1 else self.attempts[0]
        await attempt(self, receive, send)

    async def read(self, receive, num_parts: int = len(BODY)) -> None:
        for _ in range(num_parts):
            self.bodies[-1] += (await receive()).get("body", b"")


async def answers(gateways: Gateways, receive, send) -> None:
    await gateways.read(receive)
    await send(START)
    await send(END)


async def dies(gateways: Gateways, receive, send) -> None:
    await gateways.read(receive)


async def dies_during_the_upload(gateways: Gateways, receive, send) -> None:
    await gateways.read(receive, 1)


async def dies_while_it_answers(gateways: Gateways, receive, send) -> None:
    await gateways.read(receive)
    await send(START)


def refuses(status: int) -> Callable[..., Any]:
    async def refuse(gateways: Gateways, receive, send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Serve's own words"})

    return refuse


def request(
    gateways: Gateways, *, parts: Sequence[bytes] = BODY, path: str = "/v1/audio/transcriptions", **options: Any
) -> list[dict[str, Any]]:
    """Send a request through the middleware; returns what the client received."""
    sent: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [], "method": "POST"}
    asyncio.run(Resending(gateways, **options)(scope, receive, send))
    return sent


def problem(sent: list[dict[str, Any]]) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    start, end = sent
    return start["status"], json.loads(end["body"])["error"], dict(start["headers"])


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resending, "_BACKOFF_S", 0.0)
    monkeypatch.setattr(resending, "_NO_ROUTE_POLL_S", 0.0)


def test_an_answer_passes_through_unchanged():
    gateways = Gateways(answers)
    assert request(gateways) == [START, END]
    assert gateways.bodies == [b"".join(BODY)]


@pytest.mark.parametrize("death", [dies, dies_during_the_upload])
def test_a_request_whose_gateway_died_is_sent_again_with_its_whole_body(death):
    gateways = Gateways(death, death, answers)
    assert request(gateways) == [START, END]
    assert gateways.bodies[-1] == b"".join(BODY)
    assert len(set(gateways.request_ids)) == 1, "one request has one id"


def test_nothing_is_sent_again_once_an_answer_has_begun():
    gateways = Gateways(dies_while_it_answers, answers)
    assert request(gateways) == [START]
    assert len(gateways.bodies) == 1


def test_where_every_gateway_dies_the_answer_has_openais_shape_and_names_a_time_to_retry():
    status, error, headers = problem(request(Gateways(dies)))
    assert (status, error["code"], error["type"]) == (503, "unavailable", "server_error")
    assert headers[b"retry-after"]
    assert headers[b"x-request-id"]


def test_a_body_beyond_the_budget_is_not_kept_and_not_sent_again():
    gateways = Gateways(dies, answers)
    assert problem(request(gateways, max_kept_bytes=len(BODY[0])))[0] == 503
    assert len(gateways.bodies) == 1


def test_the_memory_of_a_body_is_given_back():
    gateways = Gateways(dies, answers, dies, answers)
    middleware = Resending(gateways, max_kept_bytes=100)
    budget = middleware._budget
    for _ in range(2):

        async def send(message) -> None:
            assert message["type"] != "http.response.start" or budget.free_bytes == 100

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"0123456789", "more_body": True}

        asyncio.run(middleware({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    assert budget.free_bytes == 100


def test_a_client_that_has_left_is_not_answered():
    gateways = Gateways(dies, answers)
    assert request(gateways, parts=[BODY[0]]) == []


def is_full(error: Exception) -> Callable[..., Any]:
    """Refuse as a gateway does."""

    async def refuse(gateways: Gateways, receive, send) -> None:
        await problem_response(error, request_id="r")({"type": "http"}, receive, send)

    return refuse


def requests_in_turn(gateways: Gateways, *methods: str, pause_s: float = 0.0) -> list[int]:
    """Send requests one after the other through one proxy; return the statuses."""

    async def run() -> list[int]:
        proxy, statuses = Resending(gateways), []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        for method in methods:
            scope = {"type": "http", "path": "/v1/audio/transcriptions", "headers": [], "method": method}
            await proxy(scope, receive, send)
            await asyncio.sleep(pause_s)
        return statuses

    return asyncio.run(run())


def test_after_a_refusal_for_lack_of_room_the_proxy_refuses_uploads_by_itself_for_a_moment():
    gateways = Gateways(is_full(OverloadedError(64)), answers)
    assert requests_in_turn(gateways, "POST", "POST", "GET") == [503, 503, 200]
    assert len(gateways.bodies) == 2, "the second upload reached no gateway"


def test_a_moment_later_uploads_reach_a_gateway_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crowd, "_CROWDED_S", 0.01)
    gateways = Gateways(is_full(OverloadedError(64)), answers)
    assert requests_in_turn(gateways, "POST", "POST", pause_s=0.05) == [503, 200]


@pytest.mark.parametrize("error", [AddressLimitError(4), DecodedAudioError(7), RateLimitError(2)])
def test_a_refusal_of_one_client_or_recording_shuts_nobody_else_out(error):
    gateways = Gateways(is_full(error), answers)
    assert requests_in_turn(gateways, "POST", "POST")[1] == 200


def test_the_proxy_passes_on_no_more_than_the_gateways_can_work_on():
    sent: dict[str, list[dict[str, Any]]] = {"first": [], "second": []}

    async def run() -> None:
        gateways = Gateways(waits_then_answers)
        gateways.free = asyncio.Event()
        proxy = Resending(gateways, crowd=Crowd(1))

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def ask(client: str) -> None:
            async def send(message) -> None:
                sent[client].append(message)

            scope = {"type": "http", "path": "/v1/audio/transcriptions", "headers": [], "method": "POST"}
            await proxy(scope, receive, send)

        first = asyncio.create_task(ask("first"))
        await asyncio.sleep(0)
        await ask("second")
        gateways.free.set()
        await first

    asyncio.run(run())
    assert sent["first"][0]["status"] == 200
    status, error, headers = problem(sent["second"])
    assert (status, error["code"]) == (503, "overloaded")
    assert int(headers[b"retry-after"]) >= 1


async def waits_then_answers(gateways: Gateways, receive, send) -> None:
    await gateways.free.wait()
    await answers(gateways, receive, send)


def test_a_gateways_refusal_for_lack_of_room_says_when_to_come_again():
    crowded = Crowd(None)
    _, _, headers = problem(request(Gateways(is_full(OverloadedError(64))), crowd=crowded))
    assert headers[b"retry-after"] == b"1"
    assert [crowded.retry_after_s() for _ in range(3)] == [2, 3, 4], "others come after it"


def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(MAX_WORKING_VARIABLE, "0")
    assert problem(request(Gateways(answers)))[0] == 503


def test_the_proxys_own_refusal_has_openais_shape_and_a_time_to_retry():
    response = problem_response(CrowdedError(), request_id="r")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert json.loads(response.body)["error"]["code"] == "overloaded"
    assert CROWDED_HEADER not in response.headers


def test_a_restarted_proxy_without_routes_is_waited_for():
    assert request(Gateways(refuses(404), refuses(404), answers)) == [START, END]


def test_a_service_without_routes_is_unavailable_and_not_unknown(monkeypatch):
    monkeypatch.setattr(resending, "_NO_ROUTE_S", 0.0)
    status, error, headers = problem(request(Gateways(refuses(404))))
    assert (status, error["code"]) == (503, "unavailable")
    assert headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize(("serves", "ours"), [(408, 504), (429, 503), (503, 503)])
def test_serves_own_refusals_get_openais_shape(serves, ours):
    gateways = Gateways(refuses(serves), answers)
    assert problem(request(gateways))[0] == ours
    assert len(gateways.bodies) == 1, "a refusal is final"


def test_serves_own_routes_are_left_alone():
    sent: list[dict[str, Any]] = []

    async def health(scope, receive, send) -> None:
        await refuses(503)(None, receive, send)

    async def send(message) -> None:
        sent.append(message)

    asyncio.run(Resending(health)({"type": "http", "path": "/-/healthz", "headers": []}, None, send))
    assert [message.get("status") for message in sent] == [503, None]


def test_the_proxy_finds_the_middleware_by_its_path():
    module, _, name = resending.MIDDLEWARE_PATH.partition(":")
    assert module == resending.__name__
    assert getattr(resending, name) is proxy_middleware
    assert [one.cls for one in proxy_middleware()] == [Resending]
