"""A recording is gone when its request ends, however it ends, without the cyclic garbage collector."""

import asyncio
import gc
import weakref
from typing import ClassVar

import httpx
import pytest
from fake_transcriber import FakeSource, FakeTranscriber, speech, wav
from ray.exceptions import RayTaskError

from serve.errors import ModelLoadError
from serve.gateway import Gateway
from serve.settings import Limits
from sottovoce.recognize.longform.recording import Recording

ENDS = ("answered", "cancelled", "disconnected", "window failed", "replicas lost", "deadline", "bug")


class Tracked(Recording):
    made: ClassVar[list[weakref.ref]] = []

    def __init__(self, samples) -> None:
        super().__init__(samples)
        self.made.append(weakref.ref(self))


class Request:
    """One request to the application, as Serve makes it."""

    def __init__(self, **fields) -> None:
        files = {"file": ("a.wav", wav(speech(25.0)))}
        sent = httpx.Request("POST", "http://gateway/v1/audio/transcriptions", files=files, data=fields)
        self._body = [sent.read()]
        self.has_left = asyncio.Event()
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": sent.url.path,
            "raw_path": sent.url.raw_path,
            "query_string": b"",
            "headers": [(name.lower(), value) for name, value in sent.headers.raw],
        }

    async def receive(self):
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message) -> None:
        pass


def fail(transcriber: FakeTranscriber, end: str) -> None:
    transcriber.failures = {
        "window failed": [RayTaskError("transcribe", "traceback", ModelLoadError("m", "damaged"))],
        "replicas lost": [],
        "bug": [ZeroDivisionError("secret")],
    }.get(end, [])
    if end == "replicas lost":
        transcriber.fail_from = 1
    if end in ("cancelled", "disconnected", "deadline"):
        transcriber.delay_s = 30.0


async def check_release(end: str, *, stream: bool) -> None:
    transcriber = FakeTranscriber()
    fail(transcriber, end)
    limits = Limits(deadline_s=1.0 if end == "deadline" else 30.0, deadline_per_audio_s=0.0)
    application = Gateway(transcriber, source=FakeSource(), limits=limits, api_keys_env=None).build_api()
    async with application.router.lifespan_context(application):
        request = Request(model="sottovoce", stream=str(stream).lower())
        task = asyncio.create_task(application(request.scope, request.receive, request.send))
        while not transcriber.pending:
            await asyncio.sleep(0.005)
        assert Tracked.made[-1]() is not None or end not in ("cancelled", "disconnected", "deadline")
        if end == "cancelled":
            task.cancel()
        if end == "disconnected":
            request.has_left.set()
            task.cancel()  # Serve does so, too
        await asyncio.wait([task])
        del task, request
        transcriber.pending.clear()
        await asyncio.sleep(0.05)  # threads that still search for speech end
        assert Tracked.made[-1]() is None


@pytest.mark.parametrize("stream", [False, True], ids=["body", "stream"])
@pytest.mark.parametrize("end", ENDS)
def test_a_recording_is_gone_when_its_request_has_ended(end, stream, monkeypatch):
    monkeypatch.setattr("serve.decoding.lanes.Recording", Tracked)
    monkeypatch.setattr("serve.http.problems._log.disabled", True)  # pytest keeps each record, and so its traceback
    Tracked.made.clear()
    gc.collect()
    gc.disable()
    try:
        asyncio.run(check_release(end, stream=stream))
    finally:
        gc.enable()
