"""A stream's events, one by one, over transcribers that hold windows back until they are told."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from asgi_exchange import Exchange, exchange
from fake_transcriber import FakeSource, FakeTranscriber, speech, wav
from ray.exceptions import ActorUnavailableError

from serve.gateway import Gateway
from serve.http.api import TextDelta
from serve.http.deadline import Deadline
from serve.http.events import EventStream
from serve.settings import Limits

PATH = "/v1/audio/transcriptions"
LONG = wav(speech(25.0))  # the fake model hears ten seconds at once: three windows or more


@pytest.fixture
def stream(transcriber: FakeTranscriber, form: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test's steps against a streaming request for several windows."""

    def run(steps: Callable[[Exchange], Awaitable[Any]], limits: Limits | None = None, **fields: Any) -> Any:
        async def main() -> Any:
            gateway = Gateway(transcriber, source=FakeSource(), limits=limits or Limits(), api_keys_env=None)
            api = gateway.build_api()
            async with (
                api.router.lifespan_context(api),
                exchange(api, PATH, form(LONG, stream="true", **fields)) as begun,
            ):
                return await steps(begun)

        return asyncio.run(main())

    return run


def hold_third(transcriber: FakeTranscriber) -> asyncio.Event:
    """Keep the third window back."""
    return transcriber.holds.setdefault(2, asyncio.Event())


def test_deltas_are_the_text_that_done_carries_whole(stream, transcriber):
    async def steps(begun: Exchange) -> None:
        events = await begun.rest()
        assert begun.headers["content-type"].startswith("text/event-stream")
        assert begun.headers["x-request-id"]
        num_windows = len(transcriber.windows)
        assert [event["type"] for event in events[:-1]] == ["transcript.text.delta"] * num_windows
        done = events[-1]
        assert done["type"] == "transcript.text.done"
        assert "".join(event["delta"] for event in events[:-1]) == done["text"] != ""
        usage = done["usage"]
        assert (usage["type"], usage["input_tokens"], usage["output_tokens"]) == ("tokens", 1250, 2 * num_windows)
        assert usage["total_tokens"] == 1250 + 2 * num_windows
        assert "logprobs" not in done
        assert done["languages"] == [{"code": "de"}]

    stream(steps)


def test_the_first_delta_leaves_while_a_later_window_is_still_being_decoded(stream, transcriber):
    held = hold_third(transcriber)

    async def steps(begun: Exchange) -> None:
        first = await begun.next_event()
        assert first is not None
        assert first["type"] == "transcript.text.delta"
        assert not held.is_set()
        held.set()
        rest = await begun.rest()
        assert [event["type"] for event in rest][-1] == "transcript.text.done"

    stream(steps)


def test_a_given_language_is_not_told_as_detected(stream):
    async def steps(begun: Exchange) -> None:
        assert "languages" not in (await begun.rest())[-1]

    stream(steps, language="en")


def test_logprobs_of_deltas_are_those_of_done(stream):
    async def steps(begun: Exchange) -> None:
        *pieces, done = await begun.rest()
        assert [token for piece in pieces for token in piece["logprobs"]] == done["logprobs"]
        assert set(done["logprobs"][0]) == {"token", "logprob", "bytes"}
        assert bytes(byte for token in done["logprobs"] for byte in token["bytes"]).decode().strip() == done["text"]

    stream(steps, **{"include[]": "logprobs"})


def test_an_error_after_the_first_delta_is_an_event_in_openais_shape(stream, transcriber):
    held = hold_third(transcriber)

    async def steps(begun: Exchange) -> None:
        assert await begun.next_event() is not None
        transcriber.fail_from = 2
        held.set()
        last = (await begun.rest())[-1]
        assert begun.status == 200
        assert set(last) == {"error"}
        assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "unavailable")
        assert set(last["error"]) == {"message", "type", "param", "code"}

    stream(steps)


def test_an_error_before_the_first_delta_is_a_status(stream, transcriber):
    transcriber.failures = [ActorUnavailableError("gone", None)] * 9

    async def steps(begun: Exchange) -> None:
        with pytest.raises(AssertionError):
            await begun.next_event()
        assert begun.status == 503

    stream(steps)


def test_the_deadline_ends_a_stream_with_an_event_and_frees_what_the_request_holds():
    freed: list[str] = []
    sent: list[bytes] = []

    async def forever() -> AsyncGenerator[TextDelta, None]:
        await asyncio.sleep(60)
        yield TextDelta(delta="too late")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))

    async def main() -> None:
        held = AsyncExitStack()
        held.callback(freed.append, "place")
        stream = EventStream(TextDelta(delta="first"), forever(), deadline=Deadline(0.05), held=held, request_id="id")
        await stream({"type": "http", "asgi": {"spec_version": "2.4"}}, None, send)

    asyncio.run(main())
    events = [json.loads(line.removeprefix(b"data: ")) for line in sent if line]
    assert events[0]["delta"] == "first"
    assert events[1]["error"]["code"] == "deadline_exceeded"
    assert freed == ["place"]


def test_a_client_that_goes_away_takes_its_windows_back_and_frees_its_place(stream, transcriber):
    hold_third(transcriber)

    async def steps(begun: Exchange) -> None:
        assert await begun.next_event() is not None
        while len(transcriber.pending) < 3:
            await asyncio.sleep(0.01)
        await begun.leave()
        assert transcriber.pending[2].is_cancelled

    stream(steps, Limits(max_concurrent_requests=1))


def test_text_of_any_script_arrives_as_one_line_of_ascii(stream, transcriber):
    transcriber.text = "日本\u2028語 {ms}\r\n\nx"

    async def steps(begun: Exchange) -> None:
        *pieces, done = await begun.rest()
        assert "".join(piece["delta"] for piece in pieces) == done["text"]
        assert "日本\u2028語" in done["text"]

    stream(steps)


def test_silence_is_done_without_a_delta(stream, transcriber):
    transcriber.text = ""

    async def steps(begun: Exchange) -> None:
        events = await begun.rest()
        assert [(event["type"], event["text"]) for event in events] == [("transcript.text.done", "")]
        assert events[0]["languages"] == []

    stream(steps)
