"""What a real service shows: its metrics on Ray's endpoint, its request lines in Serve's logs, and no client's text."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from fake_transcriber import speech, wav
from ray_metrics import read_endpoint, read_metrics, wait_for

from serve.observe.metrics import METRICS

pytestmark = pytest.mark.serve

SECRETS = ("canaryprompt", "canaryfile", "canarykey", "canaryquery")
"""What a client sends that may stand nowhere: prompt, file name, API key, and what it puts into the address."""
NAMES = ("canarymodel", "canarylanguage", "canaryfield", "canaryvalue")
"""What an error may quote to the client that sent it, and nothing else may hold."""


def send(base_url: str, **fields: str) -> httpx.Response:
    return httpx.post(
        f"{base_url}/audio/transcriptions?token=canaryquery",
        headers={"authorization": "Bearer canarykey"},
        files={"file": ("canaryfile.wav", wav(speech(12.0)))},
        data={"model": "sottovoce", "prompt": "canaryprompt", "language": "en", **fields},
        timeout=120.0,
    )


@pytest.fixture(scope="module")
def answers(base_url: str) -> list[httpx.Response]:
    """Two transcripts, of which the second is a stream."""
    return [send(base_url), send(base_url, stream="true")]


@pytest.fixture(scope="module")
def errors(base_url: str) -> list[httpx.Response]:
    wrong = [{"model": "canarymodel"}, {"language": "canarylanguage"}, {"canaryfield": "x"}, {"include": "canaryvalue"}]
    return [send(base_url, **fields) for fields in wrong]


def logs() -> Path:
    """The folder of this Ray's logs, Serve's among them."""
    return Path(ray._private.worker._global_node.get_logs_dir_path())


def request_lines() -> dict[str, dict[str, Any]]:
    """Every request line in the logs, by request id."""
    texts = [path.read_text(errors="replace") for path in (logs() / "serve").glob("*.log")]
    found = [line[line.index('{"event":"request"') :] for text in texts for line in text.splitlines() if is_line(line)]
    return {line["id"]: line for line in map(json.loads, found)}


def is_line(text: str) -> bool:
    return '{"event":"request"' in text


def test_every_metric_is_on_rays_endpoint(answers, errors):
    assert [answer.status_code for answer in (*answers, *errors)] == [200, 200, 404, 400, 400, 400]
    names = {metric.shown_name + "_bucket" * (metric.kind == "histogram") for metric in METRICS}
    missing = wait_for(lambda: names - {metric.name for metric in read_metrics()}, lambda missing: not missing)
    assert not missing
    reasons = wait_for(tags_by_reason, lambda found: {"ok", "model_not_found"} <= {*found})
    assert reasons["ok"]["deployment"] == "Gateway"
    assert (reasons["model_not_found"]["model"], reasons["model_not_found"]["status"]) == ("none", "404")


def tags_by_reason() -> dict[str, dict[str, str]]:
    counts = [metric for metric in read_metrics() if metric.name == "ray_sottovoce_serve_requests_total"]
    return {count.tags["reason"]: count.tags for count in counts}


def test_each_request_has_one_line_in_serves_log(answers, errors):
    ids = [answer.headers["x-request-id"] for answer in (*answers, *errors)]
    lines = wait_for(request_lines, lambda found: {*ids} <= {*found})
    plain, stream = lines[ids[0]], lines[ids[1]]
    assert (plain["model"], plain["variant"], plain["audio_s"], plain["status"]) == ("sottovoce", "torch", 12.0, 200)
    assert plain["windows"] >= 1
    assert plain["tokens"] > 0
    assert 0.0 < stream["first_delta_s"] <= stream["total_s"]
    assert [lines[each]["reason"] for each in ids[2:]] == [error.json()["error"]["code"] for error in errors]
    assert "".join(path.read_text() for path in (logs() / "serve").glob("*.log")).count(f'"id":"{ids[0]}"') == 1


def test_no_log_metric_or_error_holds_transcript_prompt_file_name_or_key(answers, errors):
    ids = {answer.headers["x-request-id"] for answer in (*answers, *errors)}
    wait_for(request_lines, lambda found: ids <= {*found})
    transcript = answers[0].json()["text"]
    assert len(transcript.split()) >= 3
    files = [path for path in logs().rglob("*") if path.is_file()]
    assert len(files) > 10
    hidden = (transcript, *SECRETS, *NAMES)
    for path in files:  # Serve's access lines among them: what stands behind the question mark is not logged
        text = path.read_text(errors="replace")
        assert not [word for word in hidden if word in text], path.name
    shown = read_endpoint()
    assert not [word for word in hidden if word in shown]
    assert not [word for word in (transcript, *SECRETS) for error in errors if word in error.text]
