"""Forms whose charset is none, or spells what is no text."""

import pytest
from starlette.testclient import TestClient


def send(client: TestClient, charset: str, *parts: tuple[bytes, bytes]):
    body = b"".join(b"--x\r\ncontent-disposition: form-data; %s\r\n\r\n%s\r\n" % part for part in parts) + b"--x--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    return client.post("/v1/audio/transcriptions", content=body, headers=headers)


def test_a_charset_that_decodes_nothing_is_a_broken_form(client):
    response = send(client, "undefined", (b'name="model"', b"sottovoce"))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_form")


@pytest.mark.parametrize(
    ("charset", "part", "param"),
    [
        ("utf-7", (b'name="prompt"', b"+2AA-"), "prompt"),
        ("unicode_escape", (b'name="prompt"', rb"\ud800"), "prompt"),
        ("unicode_escape", (rb'name="\\ud800"', b"x"), r"\ud800"),
        ("unicode_escape", (rb'name="file"; filename="\\ud800.wav"', b"x"), "file"),
    ],
)
def test_text_that_is_no_unicode_is_refused_by_the_name_of_its_field(client, charset, part, param):
    response = send(client, charset, (b'name="model"', b"sottovoce"), part)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert "not Unicode text" in error["message"]
