"""OpenAI's own client, without a network: its objects hold every answer, its error classes every refusal."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from fake_transcriber import FakeSource, FakeTranscriber, speech, wav
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    Translation,
    TranslationVerbose,
)
from ray.exceptions import ActorUnavailableError

from serve.gateway import Gateway
from serve.settings import Limits

SPEECH = ("speech.wav", wav(speech(3.0)))
Steps = Callable[[openai.AsyncOpenAI], Awaitable[Any]]


@pytest.fixture
def ask(transcriber: FakeTranscriber, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a test's steps with a client of a started gateway."""
    monkeypatch.setenv("SOME_KEYS", "right")

    def run(steps: Steps, *, api_keys_env: str | None = None, key: str = "any", **limits: Any) -> Any:
        async def main() -> Any:
            gateway = Gateway(transcriber, source=FakeSource(), limits=Limits(**limits), api_keys_env=api_keys_env)
            api = gateway.build_api()
            web = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=api))
            async with (
                api.router.lifespan_context(api),
                openai.AsyncOpenAI(base_url="http://gateway/v1", api_key=key, max_retries=0, http_client=web) as client,
            ):
                return await steps(client)

        return asyncio.run(main())

    return run


def strict(answer: Any) -> None:
    """Validate what the client only fills in: every field of its type, no other, none null."""
    given = answer.model_dump(exclude_unset=True)
    type(answer).model_validate(given, strict=True)
    assert None not in given.values()


def test_json_with_log_probabilities(ask):
    answer = ask(
        lambda client: client.audio.transcriptions.create(file=SPEECH, model="whisper-1", include=["logprobs"])
    )
    assert isinstance(answer, Transcription)
    strict(answer)
    assert answer.usage.seconds == 3.0
    assert bytes(int(byte) for byte in answer.logprobs[0].bytes).decode() == answer.logprobs[0].token
    assert [language.code for language in answer.languages] == ["de"]


@pytest.mark.parametrize(
    ("response_format", "starts"), [("text", "3000"), ("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n")]
)
def test_text_and_subtitles(ask, response_format, starts):
    answer = ask(
        lambda client: client.audio.transcriptions.create(
            file=SPEECH, model="sottovoce", response_format=response_format
        )
    )
    assert isinstance(answer, str)
    assert answer.startswith(starts)


def test_verbose_json_with_words_and_segments(ask):
    answer = ask(
        lambda client: client.audio.transcriptions.create(
            file=SPEECH,
            model="sottovoce",
            language="en",
            prompt="Ada",
            temperature=0.2,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            chunking_strategy={"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 300},
        )
    )
    assert isinstance(answer, TranscriptionVerbose)
    strict(answer)
    assert (answer.language, answer.duration) == ("english", 3.0)
    assert [word.word for word in answer.words] == answer.text.split()
    assert answer.words[0].start < answer.words[-1].end <= 3.0
    assert answer.segments[0].text.strip() == answer.text


def test_the_probability_of_a_detected_language_is_an_extra_field_of_verbose_json(ask):
    answer = ask(
        lambda client: client.audio.transcriptions.create(
            file=SPEECH, model="sottovoce", response_format="verbose_json"
        )
    )
    strict(answer)
    assert (answer.language, answer.model_extra["language_probability"]) == ("german", 0.75)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # as OpenAI calls its route
def test_translations(ask):
    plain = ask(lambda client: client.audio.translations.create(file=SPEECH, model="sottovoce", prompt="Ada"))
    assert isinstance(plain, Translation)
    verbose = ask(
        lambda client: client.audio.translations.create(file=SPEECH, model="sottovoce", response_format="verbose_json")
    )
    assert isinstance(verbose, TranslationVerbose)
    strict(verbose)
    assert verbose.language == "english"
    text = ask(lambda client: client.audio.translations.create(file=SPEECH, model="sottovoce", response_format="srt"))
    assert "-->" in text


def test_a_stream_of_typed_events(ask):
    async def steps(client: openai.AsyncOpenAI) -> list[Any]:
        stream = await client.audio.transcriptions.create(
            file=SPEECH, model="sottovoce", stream=True, include=["logprobs"], chunking_strategy="auto"
        )
        return [event async for event in stream]

    *pieces, done = ask(steps)
    for event in (*pieces, done):
        strict(event)
    assert all(isinstance(piece, TranscriptionTextDeltaEvent) for piece in pieces)
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert "".join(piece.delta for piece in pieces) == done.text != ""
    assert done.logprobs
    assert [language.code for language in done.languages] == ["de"]


def test_a_streams_error_is_raised_by_the_client(ask, transcriber):
    async def steps(client: openai.AsyncOpenAI) -> None:
        long = ("speech.wav", wav(speech(25.0)))
        transcriber.fail_from = 2
        stream = await client.audio.transcriptions.create(file=long, model="sottovoce", stream=True)
        async for _ in stream:
            pass

    with pytest.raises(openai.APIError, match="replicas stopped") as caught:
        ask(steps)
    assert caught.value.code == "unavailable"


def test_models(ask):
    async def steps(client: openai.AsyncOpenAI) -> tuple[Any, Any]:
        return await client.models.list(), await client.models.retrieve("org/name")

    models, one = ask(steps)
    assert {"sottovoce", "sottovoce@fp32", "whisper-1"} <= {model.id for model in models.data}
    assert (one.id, one.object) == ("org/name", "model")
    for model in (*models.data, one):
        strict(model)


def transcribing(data: bytes = SPEECH[1], **fields: Any) -> Steps:
    given = {"model": "sottovoce", **fields}
    return lambda client: client.audio.transcriptions.create(file=("a.wav", data), **given)


NAN = wav(np.full((1600, 1), np.nan, np.float32), subtype="FLOAT")


@pytest.mark.parametrize(
    ("steps", "setup", "error_class", "status", "code"),
    [
        (transcribing(temperature=2), {}, openai.BadRequestError, 400, "invalid_value"),
        (transcribing(b"no audio"), {}, openai.BadRequestError, 400, "invalid_audio"),
        (transcribing(), {"api_keys_env": "SOME_KEYS"}, openai.AuthenticationError, 401, "invalid_api_key"),
        (transcribing(model="gpt-9"), {}, openai.NotFoundError, 404, "model_not_found"),
        (transcribing(model="sottovoce@torch"), {}, openai.NotFoundError, 404, "model_not_found"),
        (lambda client: client.models.delete("sottovoce"), {}, openai.APIStatusError, 405, None),
        (transcribing(), {"max_body_bytes": 1000}, openai.APIStatusError, 413, "request_too_large"),
        (transcribing(), {"max_duration_s": 1.0}, openai.APIStatusError, 413, "audio_too_long"),
        (
            lambda client: client.post("/audio/transcriptions", body={"model": "sottovoce"}, cast_to=object),
            {},
            openai.APIStatusError,
            415,
            "unsupported_content_type",
        ),
        (transcribing(NAN), {}, openai.UnprocessableEntityError, 422, "unusable_audio"),
        (
            lambda client: asyncio.gather(transcribing()(client), transcribing()(client)),
            {"max_requests_per_key": 1},
            openai.InternalServerError,  # without keys: those behind one address may be many
            503,
            "overloaded",
        ),
        (transcribing(), {"failures": 5}, openai.InternalServerError, 503, "unavailable"),
        (transcribing(stream=True), {"failures": 5}, openai.InternalServerError, 503, "unavailable"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_each_refusal_is_the_clients_own_class(ask, transcriber, steps, setup, error_class, status, code):
    settings = dict(setup)
    transcriber.failures = [ActorUnavailableError("gone", None)] * settings.pop("failures", 0)
    transcriber.delay_s = 0.05
    with pytest.raises(openai.APIStatusError) as caught:
        ask(steps, key="wrong", **settings)
    assert type(caught.value) is error_class
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id
    assert caught.value.type
    assert ("retry-after" in caught.value.response.headers) == (status in (429, 503))
