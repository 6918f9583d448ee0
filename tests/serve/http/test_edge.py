"""What the outermost middleware makes of clients that leave, and whose request it is."""

import asyncio
import logging

import pytest
from starlette.requests import ClientDisconnect, Request

from serve.http.edge import Edge
from serve.http.keys import ApiKeys


def run(application, *, receive=None, keys=(), headers=(), client=("10.1.2.3", 5)):
    """Send one request through the edge; gives the scope and what was sent."""
    sent = []

    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    edge = Edge(application, keys=ApiKeys(keys), public_paths=(), is_behind_serve=True)
    scope = {"type": "http", "path": "/v1/models", "headers": list(headers), "client": client}
    asyncio.run(edge(scope, receive or gone, send))
    return scope, sent


async def read_body(scope, receive, send):
    await Request(scope, receive).body()


async def lost():
    raise RuntimeError("the proxy knows no such request")


@pytest.mark.parametrize("receive", [None, lost], ids=["disconnect", "error of Serve"])
def test_a_client_that_leaves_is_no_error(receive, caplog):
    with caplog.at_level(logging.DEBUG, logger="serve"):
        _, sent = run(read_body, receive=receive)
    assert sent == []
    assert caplog.records == [], "the request's own line tells of it"


def test_what_fails_after_the_client_has_left_is_no_fault_of_ours(caplog):
    async def fail(scope, receive, send):
        try:
            await read_body(scope, receive, send)
        except ClientDisconnect:
            raise ZeroDivisionError from None

    with caplog.at_level(logging.DEBUG, logger="serve"):
        run(fail)
    assert caplog.records == []


def test_a_cancelled_request_is_no_error_and_stays_cancelled(caplog):
    async def cancelled(scope, receive, send):
        raise asyncio.CancelledError

    with caplog.at_level(logging.DEBUG, logger="serve"), pytest.raises(asyncio.CancelledError):
        run(cancelled)
    assert caplog.records == []


async def answer(scope, receive, send):
    pass


def test_a_request_is_its_keys_or_without_keys_its_addresss():
    assert run(answer)[0]["state"]["client"] == "10.1.2.3"
    assert run(answer, client=None)[0]["state"]["client"] == "everyone"
    scope, _ = run(answer, keys=("secret",), headers=[(b"authorization", b"Bearer secret")])
    assert scope["state"]["client"] not in {"10.1.2.3", "everyone", "secret"}
