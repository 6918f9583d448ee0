"""A gateway without Ray: its transcribers are fakes that answer with what they were given."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_transcriber import FakeSource, FakeTranscriber, speech, wav
from in_process_decoder import InProcessDecoder
from starlette.testclient import TestClient

from serve.gateway import Gateway
from serve.settings import Limits

ClientFactory = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def _decode_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode without a process, which takes half a second to start."""
    monkeypatch.setattr("serve.decoding.lanes.DecoderProcess", InProcessDecoder)


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture
def make_client(transcriber: FakeTranscriber) -> Iterator[ClientFactory]:
    """Build clients of a started gateway, with limits and keys as wanted."""
    clients: list[TestClient] = []

    def make(api_keys_env: str | None = None, **limits: Any) -> TestClient:
        gateway = Gateway(
            transcriber,
            source=FakeSource(),
            limits=Limits(**limits),
            api_keys_env=api_keys_env,
        )
        clients.append(TestClient(gateway.build_api()))
        clients[-1].__enter__()
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: ClientFactory) -> TestClient:
    return make_client()


@pytest.fixture
def form() -> Callable[..., dict[str, Any]]:
    """Build a request's body: one second of noise and form fields."""

    def build(data: bytes | None = None, **fields: Any) -> dict[str, Any]:
        content = wav(speech(1.0)) if data is None else data
        return {"files": {"file": ("speech.wav", content, "audio/wav")}, "data": {"model": "sottovoce", **fields}}

    return build


@pytest.fixture
def post(client: TestClient) -> Callable[..., Any]:
    """Send one recording with form fields."""

    def send(data: bytes | None = None, **fields: Any) -> Any:
        content = wav(speech(3.0)) if data is None else data
        return client.post(
            "/v1/audio/transcriptions",
            files={"file": ("speech.wav", content, "audio/wav")},
            data={"model": "sottovoce", **fields},
        )

    return send
