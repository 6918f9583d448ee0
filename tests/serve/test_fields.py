"""Each form field is used or refused by name."""

import pytest


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "srt"}, "response_format", "unsupported_value"),
        ({"response_format": "vtt"}, "response_format", "unsupported_value"),
        ({"response_format": "xml"}, "response_format", "unsupported_value"),
        ({"language": "xx"}, "language", "unsupported_language"),
        ({"language": "../../etc"}, "language", "unsupported_language"),
        ({"temperature": "warm"}, "temperature", "invalid_value"),
        ({"temperature": "nan"}, "temperature", "invalid_value"),
        ({"temperature": "1.5"}, "temperature", "invalid_value"),
        ({"temperature": "0.4"}, "temperature", "unsupported_value"),
        ({"prompt": "Names: Ada"}, "prompt", "unsupported_parameter"),
        ({"stream": "true"}, "stream", "unsupported_value"),
        ({"include[]": "logprobs"}, "include", "unsupported_value"),
        ({"include": "logprobs"}, "include", "unsupported_value"),
        (
            {"timestamp_granularities[]": ["word"], "response_format": "verbose_json"},
            "timestamp_granularities",
            "unsupported_value",
        ),
        ({"timestamp_granularities[]": "segment"}, "timestamp_granularities", "invalid_value"),
        ({"chunking_strategy": "none"}, "chunking_strategy", "unsupported_value"),
        ({"chunking_strategy[type]": "server_vad"}, "chunking_strategy", "unsupported_value"),
        ({"keywords[]": ["a"]}, "keywords", "unsupported_parameter"),
        ({"best_of": "5"}, "best_of", "unknown_parameter"),
        ({"language": ["en", "de"]}, "language", "invalid_value"),
        ({"model": ""}, "model", "missing_required_parameter"),
    ],
)
def test_a_field_that_cannot_be_used_is_refused_by_name(post, fields, param, code):
    response = post(**fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "0"},
        {"temperature": "0.0"},
        {"prompt": ""},
        {"stream": "false"},
        {"chunking_strategy": "auto"},
        {"language": ""},
        {"timestamp_granularities[]": "segment", "response_format": "verbose_json"},
        {"timestamp_granularities": "segment", "response_format": "verbose_json"},
    ],
)
def test_a_field_that_asks_for_what_happens_anyway_is_accepted(post, fields):
    assert post(**fields).status_code == 200


def test_a_form_without_a_file_is_refused(client):
    response = client.post("/v1/audio/transcriptions", files={"model": (None, "sottovoce")})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")


def test_a_file_sent_as_text_is_refused(client):
    response = client.post("/v1/audio/transcriptions", files={"model": (None, "sottovoce"), "file": (None, "RIFF")})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")
