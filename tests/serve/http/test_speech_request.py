"""Each form field is honoured or refused by name."""

from io import BytesIO

import numpy as np
import pytest
from fake_transcriber import wav
from starlette.datastructures import FormData, UploadFile

from serve.http.forms import ServerVad
from serve.http.speech_request import read_transcription
from sottovoce.recognize.longform.options import LongFormOptions

WORDS = {"timestamp_granularities[]": "word", "response_format": "verbose_json"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "diarized_json"}, "response_format", "unsupported_value"),
        ({"response_format": "xml"}, "response_format", "unsupported_value"),
        ({"language": "xx"}, "language", "unsupported_language"),
        ({"language": "../../etc"}, "language", "unsupported_language"),
        ({"language": ["en", "de"]}, "language", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_value"),
        ({"temperature": "nan"}, "temperature", "invalid_value"),
        ({"temperature": "1.5"}, "temperature", "invalid_value"),
        ({"temperature": "-0.1"}, "temperature", "invalid_value"),
        ({"stream": "maybe"}, "stream", "invalid_value"),
        ({"stream": "true", "response_format": "verbose_json"}, "stream", "invalid_value"),
        ({"stream": "true", "response_format": "srt"}, "stream", "invalid_value"),
        ({"include[]": "words"}, "include", "unsupported_value"),
        ({"include[]": "logprobs", "response_format": "verbose_json"}, "include", "invalid_value"),
        ({"timestamp_granularities[]": ["segment", "word"]}, "timestamp_granularities", "invalid_value"),
        ({"timestamp_granularities": "segment,letter"}, "timestamp_granularities", "unsupported_value"),
        ({"timestamp_granularities": "[1]"}, "timestamp_granularities", "unsupported_value"),
        ({"timestamp_granularities": '["word"'}, "timestamp_granularities", "unsupported_value"),
        ({"timestamp_granularities": "word", "response_format": "srt"}, "timestamp_granularities", "invalid_value"),
        ({**WORDS, "timestamp_granularities[]": ["word", "letter"]}, "timestamp_granularities", "unsupported_value"),
        ({"chunking_strategy": "none"}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": "[1]"}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": "[" * 9000}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": "{}"}, "chunking_strategy.type", "missing_required_parameter"),
        ({"chunking_strategy": '{"type": "semantic_vad"}'}, "chunking_strategy.type", "unsupported_value"),
        ({"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "2"}, None, "invalid_value"),
        ({"chunking_strategy[type]": "server_vad", "chunking_strategy[eagerness]": "low"}, None, "unknown_parameter"),
        ({"chunking_strategy[type]": ["server_vad", "server_vad"]}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": "auto", "chunking_strategy[type]": "server_vad"}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": '{"type":"server_vad","threshold":NaN}'}, None, "invalid_value"),
        ({"chunking_strategy": '{"type":"server_vad","\\ud800":1}'}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": '{"type":"\\ud800"}'}, None, "invalid_value"),
        ({"keywords[]": ["a", "b"]}, "keywords", "unsupported_parameter"),
        ({"known_speaker_names": "Ada"}, "known_speaker_names", "unsupported_parameter"),
        ({"beams": "5"}, "beams", "unknown_parameter"),
        ({"language[]": "en"}, "language[]", "unknown_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
    ],
)
def test_a_field_that_cannot_be_used_is_refused_by_name(post, transcriber, fields, param, code):
    response = post(**fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert error["param"] == param or error["param"].startswith("chunking_strategy.")
    assert not transcriber.windows


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"timestamp_granularities": "word"},
            "timestamp_granularities word needs response_format=verbose_json, not json",
        ),
        ({"include": "logprobs", "response_format": "vtt"}, "include logprobs needs response_format=json, not vtt"),
        (
            {"stream": "true", "response_format": "srt"},
            "stream true gives events, and needs response_format json or text, not srt",
        ),
        ({"language": ["en", "de"]}, "language is given more than once; send it once"),
        (
            {"chunking_strategy[type]": ["server_vad", "server_vad"]},
            "chunking_strategy is given more than once, as chunking_strategy[type], chunking_strategy[type]; "
            "send one of them",
        ),
        (
            {"chunking_strategy": "x" * 99},
            f"chunking_strategy must be auto, or an object of type server_vad, not '{64 * 'x'}...'",
        ),
        (
            {"chunking_strategy": '{"type": "server_vad", "threshold": 2}'},
            "chunking_strategy.threshold: input should be less than or equal to 1, not 2",
        ),
        (
            {"temperature": "warm"},
            "temperature: input should be a valid number, unable to parse string as a number, not 'warm'",
        ),
        ({"data": b""}, "file is empty (0 bytes); send a recording"),
    ],
)
def test_a_refusal_names_what_was_sent_and_what_is_wanted(post, fields, sentence):
    assert post(**fields).json()["error"]["message"] == sentence


def test_a_file_where_text_is_wanted_is_called_a_file(client, form):
    files = {"model": (None, "sottovoce"), "chunking_strategy": ("strategy.json", b"{}")}
    message = client.post("/v1/audio/transcriptions", files=files).json()["error"]["message"]
    assert message == "chunking_strategy must be auto, or an object of type server_vad, not a file"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"language": None, "task": "transcribe", "timestamps": False, "word_timestamps": False, "prompt": ""}),
        ({"temperature": "0"}, {"temperatures": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}),
        ({"temperature": "0.4"}, {"temperatures": (0.4,)}),
        ({"prompt": " Names: Ada "}, {"prompt": "Names: Ada"}),
        ({"prompt": "", "stream": "", "language": ""}, {"prompt": "", "language": None}),
        ({"language": "EN"}, {"language": "en"}),
        ({"language": "en-GB"}, {"language": "en"}),
        ({"language": "de_CH"}, {"language": "de"}),
        ({"language": " German "}, {"language": "de"}),
        ({"language": "auto"}, {"language": None}),
        ({"language": "Auto"}, {"language": None}),
        ({"stream": "false"}, {"timestamps": False}),
        ({"include[]": "logprobs"}, {"token_logprobs": True}),
        ({"include": "logprobs"}, {"token_logprobs": True}),
        ({"response_format": "srt"}, {"timestamps": True}),
        ({"response_format": "vtt"}, {"timestamps": True}),
        ({"response_format": "verbose_json"}, {"timestamps": True, "word_timestamps": False}),
        (WORDS, {"timestamps": False, "word_timestamps": True}),  # this model reads trimmed contexts
        (
            {"timestamp_granularities": ["word", "segment"], "response_format": "verbose_json"},
            {"word_timestamps": True},
        ),
    ],
)
def test_a_field_decides_how_windows_are_decoded(post, transcriber, fields, expected):
    assert post(**fields).status_code == 200
    options = transcriber.decode_options[0]
    assert {name: getattr(options, name) for name in expected} == expected


def test_a_chunking_strategy_changes_what_it_says_and_leaves_the_services_other_settings():
    otherwise = LongFormOptions(window_s=6.0, skip_without_voice=False, threshold=0.3)
    fields = {"model": "sottovoce", "file": UploadFile(BytesIO(b"RIFF"), size=4, filename="a.wav")}
    speech = read_transcription(FormData({**fields, "chunking_strategy": "auto"}))
    cut = speech.long_form(otherwise=otherwise)
    assert (cut.window_s, cut.skip_without_voice, cut.always_find_speech) == (6.0, False, True)
    assert cut.threshold == ServerVad(type="server_vad").threshold
    assert read_transcription(FormData(fields)).long_form(otherwise=otherwise) is otherwise


def test_the_detected_language_is_told_with_its_probability_where_none_was_given(post):
    assert post().json()["languages"] == [{"code": "de"}]
    verbose = post(response_format="verbose_json").json()
    assert (verbose["language"], verbose["language_probability"]) == ("german", 0.75)
    assert "languages" not in post(language="de").json()
    assert "language_probability" not in post(language="de", response_format="verbose_json").json()


def test_where_nobody_speaks_no_language_is_told(post):
    silence = wav(np.zeros((16_000, 1), np.float32))
    assert post(silence).json()["languages"] == []
    assert "language_probability" not in post(silence, response_format="verbose_json").json()


def test_a_translation_tells_no_language_that_its_text_is_not_in(client, form):
    assert "languages" not in client.post("/v1/audio/translations", **form()).json()
    verbose = client.post("/v1/audio/translations", **form(response_format="verbose_json")).json()
    assert "language_probability" not in verbose


@pytest.mark.parametrize(
    ("granularities", "present"),
    [
        ((), {"segments"}),
        (["segment"], {"segments"}),
        (["word"], {"words"}),
        (["word", "segment"], {"words", "segments"}),
        ("word,segment", {"words", "segments"}),
        ("word, ", {"words"}),
        ('["word", "segment"]', {"words", "segments"}),
        ('["word"]', {"words"}),
        (['["segment"]', "word"], {"words", "segments"}),
    ],
)
def test_verbose_json_holds_the_granularities_asked_for(post, granularities, present):
    answer = post(response_format="verbose_json", **{"timestamp_granularities[]": granularities}).json()
    assert {"words", "segments"} & set(answer) == present


@pytest.mark.parametrize("name", ["timestamp_granularities", "timestamp_granularities[]", "timestamp_granularities[0]"])
def test_a_list_may_be_named_with_brackets_with_an_index_or_bare(post, name):
    assert "words" in post(response_format="verbose_json", **{name: "word"}).json()


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt", "verbose_json"])
def test_the_default_granularity_may_be_sent_with_any_format_as_the_ai_sdk_does(post, response_format):
    assert post(response_format=response_format, **{"timestamp_granularities[]": "segment"}).status_code == 200


def test_translation_decodes_into_english_and_says_so(client, transcriber, form):
    answer = client.post("/v1/audio/translations", **form(response_format="verbose_json", prompt="Ada")).json()
    assert (answer["task"], answer["language"]) == ("translate", "english")
    assert len(answer["segments"]) >= 1
    options = transcriber.decode_options[0]
    assert (options.task, options.language, options.prompt) == ("translate", None, "Ada")


@pytest.mark.parametrize("name", ["language", "stream", "timestamp_granularities[]", "include[]", "chunking_strategy"])
def test_translation_refuses_what_openais_route_does_not_have(client, form, name):
    response = client.post("/v1/audio/translations", **form(**{name: "en"}))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unknown_parameter")


def test_a_form_without_a_file_is_refused(client):
    response = client.post("/v1/audio/transcriptions", files={"model": (None, "sottovoce")})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")


@pytest.mark.parametrize("num_bytes", [4, 100_000])
def test_a_recording_without_a_filename_is_refused_by_the_same_sentence_at_any_size(client, num_bytes):
    files = {"model": (None, "sottovoce"), "file": (None, num_bytes * "R")}
    response = client.post("/v1/audio/transcriptions", files=files)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_value", "file")
    assert error["message"] == (
        "file must be a file part with a filename, not text; name it, as curl's -F file=@speech.wav does"
    )


def test_a_text_sent_as_a_file_is_refused(client):
    response = client.post("/v1/audio/transcriptions", files={"model": ("model.txt", b"sottovoce")})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")
