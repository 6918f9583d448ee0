"""Fields that other servers of this API take: honoured, or refused with what to send instead."""

import json
from io import BytesIO

import pytest
from starlette.datastructures import FormData, UploadFile

from serve.http.forms import INSTEAD, ServerVad, TranscriptionForm, TranslationForm
from serve.http.speech_request import SpeechRequest, read_transcription
from sottovoce.recognize.longform.options import LongFormOptions

FORMS = (TranscriptionForm, TranslationForm)


def read(**fields: str) -> SpeechRequest:
    file = UploadFile(BytesIO(b"RIFF"), size=4, filename="a.wav")
    return read_transcription(FormData({"model": "sottovoce", "file": file, **fields}))


@pytest.mark.parametrize("route", ["transcriptions", "translations"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"beam_size": 1, "best_of": 1, "seed": 0}),
        ({"hotwords": "Ada, Grace"}, {"prompt": "Ada, Grace"}),
        ({"hotwords": "Ada, Grace", "prompt": "Dear"}, {"prompt": "Ada, Grace Dear"}),
        ({"seed": "7", "temperature": "0.5"}, {"seed": 7, "temperatures": (0.5,)}),
        ({"beam_size": "5"}, {"beam_size": 5}),
        ({"best_of": "5"}, {"best_of": 5}),
        ({"without_timestamps": "false"}, {"timestamps": True}),
        ({"without_timestamps": "true"}, {"timestamps": False}),
        ({"without_timestamps": "true", "response_format": "srt"}, {"timestamps": False}),
        ({"without_timestamps": "false", "response_format": "srt"}, {"timestamps": True}),
    ],
)
def test_what_the_decoder_can_do_is_done(client, form, transcriber, route, fields, expected):
    assert client.post(f"/v1/audio/{route}", **form(**fields)).status_code == 200
    options = transcriber.decode_options[0]
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"algorithm": "sequential", "skip_without_voice": False, "always_find_speech": False, "threshold": 0.3}),
        ({"vad_filter": "true"}, {"algorithm": "chunked", "skip_without_voice": True, "always_find_speech": True}),
        ({"vad_filter": "true", "chunking_strategy": "auto"}, {"threshold": 0.5, "skip_without_voice": True}),
        ({"vad_filter": "false"}, {"algorithm": "sequential", "skip_without_voice": False}),
        ({"without_timestamps": "true"}, {"algorithm": "chunked"}),
        ({"without_timestamps": "false"}, {"algorithm": "sequential"}),
    ],
)
def test_the_speech_detector_is_switched_for_one_request(fields, expected):
    service = LongFormOptions(algorithm="sequential", skip_without_voice=False, threshold=0.3)
    asked = read(**fields).long_form(otherwise=service)
    assert {name: getattr(asked, name) for name in expected} == expected


def test_without_the_filter_noise_is_decoded_and_with_it_nothing_is(post, transcriber):
    from fake_transcriber import wav
    from numpy.random import default_rng

    noise = wav(0.02 * default_rng(0).standard_normal((32_000, 1)).astype("float32"))
    assert post(noise, vad_filter="true").json()["text"] == ""
    assert not transcriber.windows
    assert post(noise, vad_filter="false").json()["text"] == "2000 ms"


def test_a_stream_without_usage(post):
    events = [json.loads(line[6:]) for line in post(stream="true", stream_include_usage="false").text.splitlines()[::2]]
    assert events[-1]["type"] == "transcript.text.done"
    assert "usage" not in events[-1]
    events = [json.loads(line[6:]) for line in post(stream="true", stream_include_usage="true").text.splitlines()[::2]]
    assert events[-1]["usage"]["type"] == "tokens"


@pytest.mark.parametrize("language", ["en", "English", "en-US"])
def test_a_translation_into_english_may_be_named(client, form, language):
    assert client.post("/v1/audio/translations", **form(to_language=language)).status_code == 200


def test_a_translation_into_another_language_is_refused(client, form):
    error = client.post("/v1/audio/translations", **form(to_language="fr")).json()["error"]
    assert (error["param"], error["code"]) == ("to_language", "invalid_value")
    assert error["message"] == "to_language must be en, the only language that Whisper translates into, not 'fr'"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"beam_size": "5", "temperature": "0.5"}, "beam_size searches at temperature 0, not 0.5; send best_of, or no"),
        ({"beam_size": "11"}, "beam_size: input should be less than or equal to 10, not '11'"),
        ({"best_of": "0"}, "best_of: input should be greater than or equal to 1, not '0'"),
        ({"seed": "-1"}, "seed: input should be greater than or equal to 0, not '-1'"),
        ({"vad_filter": "false", "chunking_strategy": "auto"}, "vad_filter false decodes what is no speech"),
        ({"vad_filter": "false", "without_timestamps": "true"}, "vad_filter false moves by timestamps"),
        ({"stream_include_usage": "true"}, "stream_include_usage needs stream=true"),
        ({"repetition_penalty": "1.2"}, "repetition_penalty is not supported: there are no penalties"),
        (
            {"to_language": "en"},
            "to_language is not supported: a transcript is in the spoken language; POST /v1/audio/",
        ),
        ({"vad_parameters": "{}"}, "vad_parameters is not supported: send chunking_strategy"),
        ({"keywords[]": ["a", "b"]}, "keywords is not supported: send them as hotwords or in prompt"),
        ({"use_beam_search": "true"}, "use_beam_search is not supported: send beam_size"),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_to_send_instead(post, transcriber, fields, sentence):
    response = post(**fields)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(sentence)
    assert not transcriber.windows


def test_every_refused_name_is_refused_by_name(post):
    for name, instead in INSTEAD.items():
        error = post(**{name: "x"}).json()["error"]
        assert error["message"] == f"{name} is not supported: {instead}"
        assert (error["param"], error["code"]) == (name, "unsupported_parameter")


def test_what_to_send_instead_names_fields_that_exist():
    fields = {name for form in FORMS for name in form.model_fields} | set(ServerVad.model_fields)
    named = {word for instead in INSTEAD.values() for word in instead.replace(",", " ").replace("[]", " ").split()}
    assert {"prompt", "hotwords", "beam_size", "best_of", "chunking_strategy", "vad_filter"} <= named & fields
    assert all(not set(INSTEAD) & set(form.model_fields) - {"to_language"} for form in FORMS)


def test_vtt_has_its_own_type(post):
    assert post(response_format="vtt").headers["content-type"] == "text/vtt; charset=utf-8"
    assert post(response_format="srt").headers["content-type"] == "text/plain; charset=utf-8"
