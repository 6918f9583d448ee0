"""The gateway's routes, over fake transcribers."""

import asyncio
import logging
import re
import time

import httpx
import numpy as np
import pytest
from fake_transcriber import FakeSource, FakeTranscriber, speech, wav
from ray.exceptions import ActorUnavailableError
from ray.serve.exceptions import BackPressureError

from serve.gateway import Gateway
from serve.settings import Limits
from sottovoce.errors import ConfigError


def form(data: bytes | None = None, **fields):
    content = wav(speech(1.0)) if data is None else data
    return {"files": {"file": ("a.wav", content)}, "data": {"model": "sottovoce", **fields}}


def error_of(response) -> dict:
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return response.json()["error"]


def test_json_holds_text_and_seconds(post, transcriber):
    response = post(wav(speech(3.0)))
    assert response.status_code == 200
    assert response.json()["text"] == f"{len(transcriber.windows[0]) // 16} ms"
    assert response.json()["usage"] == {"type": "duration", "seconds": 3.0}


def test_text_is_plain_with_a_newline_at_the_end(post):
    response = post(response_format="text")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text.endswith(" ms\n")


def test_verbose_json_has_one_segment_for_each_window_with_all_fields(post, transcriber):
    answer = post(wav(speech(25.0)), response_format="verbose_json").json()
    assert len(answer["segments"]) == len(transcriber.windows) >= 3
    assert all(len(window) <= 160_000 for window in transcriber.windows)
    names = {"id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio"}
    assert all(set(segment) == names | {"no_speech_prob"} for segment in answer["segments"])
    assert [segment["id"] for segment in answer["segments"]] == list(range(len(answer["segments"])))
    starts = [segment["start"] for segment in answer["segments"]]
    assert starts == sorted(starts)
    assert answer["segments"][-1]["end"] <= answer["duration"] == 25.0
    assert answer["segments"][1]["seek"] == round(answer["segments"][1]["start"] * 100)
    assert "".join(segment["text"] for segment in answer["segments"]).strip() == answer["text"]
    assert answer["task"] == "transcribe"


def test_a_given_language_is_used_and_named_in_english(post, transcriber):
    assert post(language="EN", response_format="verbose_json").json()["language"] == "english"
    assert transcriber.decode_options[0].language == "en"


def test_without_a_language_the_detected_one_is_named(post, transcriber):
    assert post(response_format="verbose_json").json()["language"] == "german"
    assert transcriber.decode_options[0].language is None


def test_pure_silence_is_an_empty_transcript_without_asking_the_model(post, transcriber):
    answer = post(wav(np.zeros((16_000, 1), np.float32)), response_format="verbose_json").json()
    assert (answer["text"], answer["segments"], answer["duration"]) == ("", [], 1.0)
    assert not transcriber.windows


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "invalid_value"),
        (b"this is text, renamed .wav", 400, "invalid_audio"),
        (wav(speech(1.0))[:100], 400, "invalid_audio"),
        (b"RIFF" * 9, 400, "invalid_audio"),
        (wav(np.zeros((0, 1), np.float32)), 422, "unusable_audio"),
        (wav(np.full((1600, 1), np.nan, np.float32), subtype="FLOAT"), 422, "unusable_audio"),
    ],
    ids=["empty", "text", "truncated", "header-only", "no-samples", "nan"],
)
def test_audio_that_cannot_be_used_is_refused_without_the_files_name(post, data, status, code):
    response = post(data)
    assert response.status_code == status
    error = error_of(response)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "file", code)
    assert "speech.wav" not in error["message"]


@pytest.mark.parametrize(("rate", "num_channels"), [(96_000, 1), (44_100, 8)])
def test_any_rate_and_channel_count_is_heard(post, rate, num_channels):
    answer = post(wav(speech(1.0, rate, num_channels), rate)).json()
    assert answer["usage"]["seconds"] == pytest.approx(1.0, abs=0.001)


def test_audio_above_the_limit_of_seconds_is_a_413(make_client):
    response = make_client(max_duration_s=2.0).post("/v1/audio/transcriptions", **form(wav(speech(3.0))))
    assert (response.status_code, error_of(response)["code"]) == (413, "audio_too_long")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_the_limit_is_a_413_declared_or_not(make_client, is_chunked):
    client = make_client(max_body_bytes=10_000)
    request = client.build_request("POST", "/v1/audio/transcriptions", **form(b"x" * 20_000))
    body = request.read()

    def chunks():
        for start in range(0, len(body), 500):
            yield body[start : start + 500]

    headers = {"content-type": request.headers["content-type"]}
    response = client.post("/v1/audio/transcriptions", content=chunks() if is_chunked else body, headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")


def test_a_body_that_is_no_form_is_a_415_and_a_broken_form_a_400(client):
    response = client.post("/v1/audio/transcriptions", json={"model": "sottovoce"})
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_content_type")
    broken = client.post(
        "/v1/audio/transcriptions", content=b"nothing", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    assert (
        client.post(
            "/v1/audio/transcriptions", content=b"x", headers={"content-type": "multipart/form-data"}
        ).status_code
        == 400
    )


def test_a_content_length_that_is_no_number_is_a_400_that_names_it(client):
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": "12x"}
    error = error_of(client.post("/v1/audio/transcriptions", content=b"x", headers=headers))
    assert error["code"] == "invalid_content_length"
    assert "'12x'" in error["message"]


def test_two_files_and_too_many_fields_are_a_400(client):
    files = [("file", ("a.wav", b"a")), ("file", ("b.wav", b"b"))]
    assert client.post("/v1/audio/transcriptions", files=files).status_code == 400
    fields = {f"field{index}": "x" for index in range(40)}
    assert client.post("/v1/audio/transcriptions", files={"file": b"a"}, data=fields).status_code == 400


def test_an_unknown_model_is_a_404(client):
    response = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", b"x")}, data={"model": "gpt-9"})
    assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")


def test_models_are_listed_and_found_also_with_a_slash(client):
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert {"sottovoce", "sottovoce@fp32", "org/name", "whisper-1"} <= set(ids)
    for path in ("org/name", "org%2Fname", "whisper-1", "sottovoce%40fp32"):
        found = client.get(f"/v1/models/{path}").json()
        files = found.pop("files", None)
        assert files == (
            [{"name": "model.safetensors", "bytes": 5, "sha256": "ab" * 32}] if path == "whisper-1" else None
        ), "only the default model has been loaded"
        assert found == {
            "id": path.replace("%2F", "/").replace("%40", "@"),
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "sottovoce",
            "variant": {"w": "int8", "s": "fp32"}.get(path[0], "torch"),
            "source": "org/name" if path.startswith("org") else "sottovoce",
        }
    assert error_of(client.get("/v1/models/nope"))["code"] == "model_not_found"


def test_unknown_paths_and_methods_answer_in_openais_shape(client):
    assert (client.get("/nope").status_code, client.delete("/v1/models").status_code) == (404, 405)
    assert error_of(client.get("/nope"))["type"] == "invalid_request_error"
    assert error_of(client.delete("/v1/models"))["message"]


def test_every_response_carries_an_id(client):
    for response in (client.get("/healthz"), client.get("/nope"), client.post("/v1/audio/transcriptions")):
        assert response.headers["x-request-id"]
    assert client.get("/nope", headers={"x-request-id": "mine-1 \x01"}).headers["x-request-id"] == "mine-1"


def test_a_window_is_sent_again_when_its_replica_dies(post, transcriber):
    transcriber.failures = [ActorUnavailableError("gone", None), ActorUnavailableError("gone", None)]
    assert post().status_code == 200
    assert len(transcriber.windows) == 3


def test_five_dead_replicas_are_a_503_that_says_when_to_try_again(post, transcriber):
    transcriber.failures = [ActorUnavailableError("gone", None)] * 5
    response = post()
    assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"


def test_a_full_queue_is_a_503_that_says_when_to_try_again(post, transcriber):
    transcriber.failures = [BackPressureError(8, 8)]
    response = post()
    assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "1"


def test_the_deadline_is_a_504_and_takes_the_windows_back(make_client, transcriber):
    transcriber.delay_s = 30.0
    response = make_client(deadline_s=2.0).post("/v1/audio/transcriptions", **form())
    assert (response.status_code, error_of(response)["code"]) == (504, "deadline_exceeded")
    assert response.headers["x-should-retry"] == "false"
    assert transcriber.pending, "the window was sent before the deadline"
    assert all(pending.is_cancelled for pending in transcriber.pending)


def test_longer_audio_has_a_later_deadline(make_client, transcriber):
    transcriber.delay_s = 1.5
    client = make_client(deadline_s=1.0, deadline_per_audio_s=10.0)
    for stream in ("false", "true"):
        assert client.post("/v1/audio/transcriptions", **form(stream=stream)).status_code == 200


def test_a_long_recording_is_answered_as_a_short_one_is(make_client, transcriber):
    short = make_client().post("/v1/audio/transcriptions", **form(wav(speech(25.0)))).json()
    client = make_client(short_audio_s=5.0)
    assert client.post("/v1/audio/transcriptions", **form(wav(speech(25.0)))).json() == short


def test_more_decoded_audio_than_fits_is_a_503_that_says_when_to_try_again(make_client, monkeypatch):
    monkeypatch.setattr("serve.decoding.memory.LONG_SHARE", 0.01)
    client = make_client(short_audio_s=5.0, max_duration_s=60.0, max_decoded_bytes=2_560_000)
    response = client.post("/v1/audio/transcriptions", **form(wav(speech(25.0))))
    assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "15"


def test_an_error_of_ours_is_a_500_whose_id_is_in_the_log(post, transcriber, caplog):
    transcriber.failures = [ZeroDivisionError("secret detail")]
    with caplog.at_level(logging.ERROR):
        response = post()
    assert response.status_code == 500
    request_id = response.headers["x-request-id"]
    assert request_id in error_of(response)["message"]
    assert "secret" not in response.text
    assert any(request_id in record.message and record.exc_info for record in caplog.records)


def test_requests_above_the_limit_are_refused_while_others_work(transcriber):
    transcriber.delay_s = 0.3
    api = Gateway(transcriber, source=FakeSource(), limits=Limits(max_concurrent_requests=2), api_keys_env=None)
    statuses = asyncio.run(_post_at_once(api.build_api(), 5))
    assert sorted(statuses) == [200, 200, 503, 503, 503]


def test_one_key_with_all_its_requests_open_is_a_429_and_other_keys_are_served(transcriber, monkeypatch):
    monkeypatch.setenv("SOME_KEYS", "first,second")
    transcriber.delay_s = 0.3
    api = Gateway(
        transcriber, source=FakeSource(), limits=Limits(max_requests_per_key=1), api_keys_env="SOME_KEYS"
    ).build_api()
    responses = asyncio.run(_post_with_keys(api, ["first", "first", "second"]))
    assert [response.status_code for response in responses] == [200, 429, 200]
    error = error_of(responses[1])
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert responses[1].headers["retry-after"] == "1"


async def _post_with_keys(api, keys: list[str]) -> list[httpx.Response]:
    async with api.router.lifespan_context(api):
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            headers = [{"authorization": f"Bearer {key}"} for key in keys]
            posts = [client.post("/v1/audio/transcriptions", headers=given, **form()) for given in headers]
            return await asyncio.gather(*posts)


def test_readiness_asks_a_transcriber_and_is_a_503_where_none_answers(client, transcriber, monkeypatch):
    assert client.get("/readyz").json() == {"status": "ready"}
    monkeypatch.setattr("serve.gateway._READY_TIMEOUT_S", 0.05)
    transcriber.describe_delay_s = 30.0
    response = client.get("/readyz")
    assert (response.status_code, error_of(response)["code"]) == (503, "not_ready")
    assert response.headers["retry-after"] == "1"
    assert client.get("/healthz").json() == {"status": "ok"}


def test_readiness_is_a_503_where_the_default_model_is_gone(make_client, monkeypatch):
    monkeypatch.setattr("serve.models.catalog._POLL_S", 0.01)
    client = make_client()
    monkeypatch.setattr(FakeSource, "read", lambda _: {})
    end = time.monotonic() + 10.0
    while (response := client.get("/readyz")).status_code == 200:
        assert time.monotonic() < end
    assert (response.status_code, error_of(response)["code"]) == (503, "model_unavailable")


async def _post_at_once(api, num_requests: int) -> list[int]:
    async with api.router.lifespan_context(api):
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            posts = [client.post("/v1/audio/transcriptions", **form()) for _ in range(num_requests)]
            return [response.status_code for response in await asyncio.gather(*posts)]


def test_keys_are_wanted_on_every_path_but_probes_and_documentation(make_client, monkeypatch):
    monkeypatch.setenv("SOME_KEYS", "first, second")
    client = make_client(api_keys_env="SOME_KEYS")
    for path in ("/v1/models", "/v1/models/sottovoce", "/nope", "/docs/../v1/models"):
        response = client.get(path)
        assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.get("/v1/models", headers={"authorization": "Bearer second"}).status_code == 200
    for wrong in ("Bearer firs", "Bearer first, second", "Basic first", "Bearer ", "first", "Bearer \xff"):
        assert client.get("/v1/models", headers={"authorization": wrong.encode("latin-1")}).status_code == 401


def test_documentation_asks_nothing_of_another_host(make_client, monkeypatch):
    monkeypatch.setenv("SOME_KEYS", "first")
    client = make_client(api_keys_env="SOME_KEYS")
    wanted = re.findall(r'(?:src|href)="([^"]+)"', client.get("/docs").text)
    assert len(wanted) == 3
    for path in wanted:
        assert path.startswith("/docs/files/")
        assert client.get(path).status_code == 200
    for path in ("/docs/files/", "/docs/files/nope.js", "/docs/files/../../v1/models", "/docs/files/%2e%2e/core.py"):
        assert client.get(path).status_code in {401, 404}


def test_a_named_variable_without_keys_refuses_to_start(monkeypatch):
    monkeypatch.delenv("SOME_KEYS", raising=False)
    with pytest.raises(ConfigError, match="SOME_KEYS"):
        Gateway(FakeTranscriber(), source=FakeSource(), limits=Limits(), api_keys_env="SOME_KEYS")
