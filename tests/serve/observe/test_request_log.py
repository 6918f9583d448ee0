"""The log line and the metrics of each request, over fake transcribers."""

import asyncio
import logging
from typing import Any

import pytest
from asgi_exchange import exchange
from fake_transcriber import FakeSource, speech, wav

from serve.gateway import Gateway
from serve.observe.metrics import (
    AUDIO_DECODE_SECONDS,
    AUDIO_SECONDS,
    FIRST_DELTA_SECONDS,
    REQUEST_SECONDS,
    REQUESTS,
    RTFX,
    TRANSCRIPTS,
    WINDOW_SECONDS,
    WORK_SECONDS,
)
from serve.observe.request_log import RequestLine, current_request
from serve.settings import Limits

PATH = "/v1/audio/transcriptions"
MODEL = {"model": "sottovoce", "variant": "int8"}
LONG = wav(speech(25.0))  # the fake model takes ten seconds at once: three windows or more


def test_an_answered_request_has_one_line_with_sizes_durations_and_model(client, form, transcriber, lines):
    response = client.post(PATH, **form(LONG))
    (line,) = lines()
    assert set(line) == set(RequestLine.model_fields) - {"first_delta_s"}
    assert line["id"] == response.headers["x-request-id"]
    assert (line["event"], line["route"], line["status"], line["reason"]) == ("request", PATH, 200, "ok")
    assert (line["model"], line["variant"], line["release"]) == ("sottovoce", "int8", "1")
    assert line["request_bytes"] > len(LONG)
    assert line["response_bytes"] == len(response.content)
    assert (line["audio_s"], line["windows"], line["is_stream"], line["is_empty"]) == (
        25.0,
        len(transcriber.windows),
        False,
        False,
    )
    assert line["tokens"] == 2 * line["windows"]
    assert 0.0 < line["upload_s"] + line["model_s"] + line["decode_s"] <= line["total_s"] + 0.003  # rounding


def test_an_answered_request_is_in_the_metrics_of_its_model(client, form, values, labels):
    client.post(PATH, **form(LONG))
    assert labels(REQUESTS) == [{"route": PATH, "status": "200", "reason": "ok", **MODEL}]
    assert values(AUDIO_SECONDS) == [25.0]
    assert values(REQUEST_SECONDS) == values(WORK_SECONDS)
    assert values(RTFX) == [pytest.approx(25.0 / values(WORK_SECONDS)[0])]
    assert labels(TRANSCRIPTS) == [{"outcome": "text", **MODEL}]
    assert len(values(WINDOW_SECONDS)) >= 3
    assert len(values(AUDIO_DECODE_SECONDS)) == 1
    assert not values(FIRST_DELTA_SECONDS)


def test_a_transcript_without_text_is_counted_as_empty(client, form, lines, labels):
    client.post(PATH, **form(wav(0.0 * speech(1.0))))
    assert labels(TRANSCRIPTS) == [{"outcome": "empty", **MODEL}]
    assert lines()[0]["is_empty"] is True


def test_a_stream_shows_the_seconds_to_its_first_event(client, form, lines, values):
    client.post(PATH, **form(LONG, stream="true"))
    (line,) = lines()
    assert (line["reason"], line["is_stream"]) == ("ok", True)
    assert 0.0 < line["first_delta_s"] <= line["total_s"]
    assert len(values(FIRST_DELTA_SECONDS)) == 1


def test_a_stream_that_fails_after_its_status_has_the_reason_of_its_error(client, form, transcriber, lines, values):
    transcriber.fail_from = 2
    client.post(PATH, **form(LONG, stream="true"))
    (line,) = lines()
    assert (line["status"], line["reason"], line["windows"]) == (200, "unavailable", 2)
    assert not values(AUDIO_SECONDS), "nothing was answered"


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"model": "secretmodel"}, 404, "model_not_found"),
        ({"secretfield": "x"}, 400, "unknown_parameter"),
        ({"temperature": "secrettemperature"}, 400, "invalid_value"),
        ({"language": "secretlanguage"}, 400, "unsupported_language"),
    ],
)
def test_a_refused_request_has_the_errors_code_and_no_text_of_the_client(
    post, lines, labels, caplog, fields, status, reason
):
    response = post(**fields)
    (line,) = lines()
    assert (line["status"], line["reason"]) == (status, reason)
    assert (response.status_code, response.json()["error"]["code"]) == (status, reason)
    assert labels(REQUESTS)[0]["reason"] == reason
    assert "secret" not in caplog.text
    assert "secret" not in str(labels(REQUESTS))


def test_unknown_paths_methods_and_models_do_not_become_labels(client, lines, labels):
    client.get("/secret")
    client.get("/v1/models/secret")
    client.get("/v1/models/sottovoce")
    client.delete("/v1/models")
    routes = ["other", "/v1/models/{model_id:path}", "/v1/models/{model_id:path}", "/v1/models"]
    assert [given["route"] for given in labels(REQUESTS)] == [line["route"] for line in lines()] == routes
    assert [line["status"] for line in lines()] == [404, 404, 200, 405]
    assert {given["model"] for given in labels(REQUESTS)} == {"none"}


def test_probes_have_no_line_and_are_not_counted(client, lines, recorded):
    client.get("/healthz")
    client.get("/readyz")
    assert not lines()
    assert not recorded


def test_the_deadline_and_an_error_of_ours_have_a_line(make_client, form, transcriber, lines):
    transcriber.failures = [ZeroDivisionError()]
    make_client().post(PATH, **form())
    transcriber.delay_s = 30.0
    make_client(deadline_s=2.0).post(PATH, **form())
    assert [(line["status"], line["reason"]) for line in lines()] == [
        (500, "internal_error"),
        (504, "deadline_exceeded"),
    ]
    assert lines()[1]["total_s"] >= 2.0
    assert lines()[1]["windows"] == 0


@pytest.mark.parametrize(("fields", "status"), [({"stream": "true"}, 200), ({}, 499)])
def test_a_client_that_leaves_is_cancelled(form, transcriber, lines, values, fields, status):
    transcriber.holds[2] = asyncio.Event()  # the third window never comes

    async def main() -> None:
        gateway = Gateway(transcriber, source=FakeSource(), limits=Limits(), api_keys_env=None)
        api = gateway.build_api()
        async with api.router.lifespan_context(api), exchange(api, PATH, form(LONG, **fields)) as begun:
            if fields:
                await begun.next_event()
                await begun.leave()
                return
            async with asyncio.timeout(30.0):
                while len(transcriber.windows) < 3:
                    await asyncio.sleep(0.01)
            begun._task.cancel()  # as Serve does when the connection of a request without a stream closes
            await asyncio.gather(begun._task, return_exceptions=True)

    asyncio.run(main())
    (line,) = lines()
    assert (line["status"], line["reason"]) == (status, "cancelled")
    assert not values(AUDIO_SECONDS)


def test_outside_a_request_notes_go_nowhere(lines):
    current_request().fail("some_code")
    assert current_request().reason == "ok"
    assert not lines()


CANARIES = {"prompt": "canaryprompt", "file": "canaryfile", "key": "canarykey", "text": "canarytext"}


def test_no_log_metric_or_error_holds_transcript_prompt_file_name_or_key(
    make_client, transcriber, recorded, caplog, monkeypatch
):
    for name in ("serve", "sottovoce"):
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setenv("CANARY_KEYS", CANARIES["key"])
    transcriber.text = CANARIES["text"]
    client = make_client(api_keys_env="CANARY_KEYS", max_duration_s=30.0)
    key = {"authorization": f"Bearer {CANARIES['key']}"}

    def post(data: bytes, headers: dict[str, str] = key, **fields: Any) -> Any:
        files = {"file": (f"{CANARIES['file']}.wav", data, "audio/wav")}
        fields = {"model": "sottovoce", "prompt": CANARIES["prompt"], **fields}
        return client.post(f"{PATH}?key={CANARIES['key']}", headers=headers, files=files, data=fields)

    answers = [post(LONG), post(LONG, stream="true"), post(LONG, response_format="verbose_json")]
    assert all(CANARIES["text"] in answer.text for answer in answers)
    wrong = {"authorization": f"Bearer {CANARIES['key']}x"}
    errors = [
        post(LONG, wrong),
        post(b"no audio"),
        post(b""),
        post(wav(speech(31.0))),
        post(LONG, model="nope"),
        post(LONG, language="nope"),
        post(LONG, temperature="hot"),
        post(LONG, response_format="srt", stream="true"),
    ]
    transcriber.failures = [ZeroDivisionError()]
    errors.append(post(LONG))
    assert [answer.status_code for answer in errors] == [401, 400, 400, 413, 404, 400, 400, 400, 500]
    transcriber.fail_from = len(transcriber.windows) + 1
    assert "unavailable" in post(LONG, stream="true").text
    bodies = "".join(answer.text for answer in errors)
    assert len(recorded) > 20
    records = [record for record in caplog.records if record.name != "httpx"]  # the test's own client
    log = "".join(f"{record.getMessage()}{record.exc_text or ''}" for record in records)
    assert '"event":"request"' in log
    for place in (log, str([labels for _, _, labels in recorded]), bodies):
        assert not [canary for canary in CANARIES.values() if canary in place]
