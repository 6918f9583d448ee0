"""The API's schema is whole, and every answer fits it, whatever is sent: schemathesis makes the requests up."""

from typing import Any

import pytest
from fake_transcriber import FakeSource, FakeTranscriber, speech, wav

from serve.gateway import Gateway
from serve.settings import Limits

SPEECH = wav(speech(1.0))
OPERATIONS = [
    ("/v1/audio/transcriptions", "POST"),
    ("/v1/audio/translations", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{model_id}", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
]


@pytest.fixture(scope="module")
def api_schema() -> Any:
    import schemathesis  # takes a second to import, so that pyproject.toml switches its plugin off

    gateway = Gateway(FakeTranscriber(), source=FakeSource(), limits=Limits(), api_keys_env=None)
    return schemathesis.openapi.from_asgi("/openapi.json", gateway.build_api())


def send(case: Any) -> Any:
    """Send a request that is filled in by hand, and hold the answer against the schema."""
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    # A schema cannot say that the file must be speech, or which fields go together: those are refused with a 400.
    # And bytes put in by hand are no text to schemathesis, so that it takes the request for a wrong one.
    return case.call_and_validate(excluded_checks=[positive_data_acceptance, negative_data_rejection])


def assert_answers_fit(api_schema: Any, path: str, method: str, *, num_examples: int) -> None:
    """Send requests that do not fit the schema, and some that do, half of them with what is there and can be heard."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from schemathesis import GenerationMode

    operation = api_schema[path][method]
    fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    unfitting = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    options = settings(max_examples=num_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))

    statuses: set[int] = set()

    @options
    @given(
        case=fitting,
        is_heard=st.sampled_from([True, False]),
        model=st.sampled_from(["sottovoce", "whisper-1", "org/name"]),
    )
    def send_fitting(case: Any, is_heard: bool, model: str) -> None:
        if is_heard and isinstance(case.body, dict):
            case.body |= {"file": SPEECH, "model": model}
        if is_heard and case.path_parameters:
            case.path_parameters |= {"model_id": model}
        statuses.add(send(case).status_code)

    @options
    @given(case=unfitting)
    def send_unfitting(case: Any) -> None:
        case.call_and_validate()

    send_fitting()
    assert 200 in statuses, "nothing was ever heard"
    if method == "POST":  # the others take nothing that could be wrong
        send_unfitting()


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method in OPERATIONS if method == "GET"])
def test_answers_fit_the_schema(api_schema, path, method):
    assert_answers_fit(api_schema, path, method, num_examples=10)


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method in OPERATIONS if method == "POST"])
def test_an_answer_and_a_refusal_fit_the_schema(api_schema, path, method):
    """Made by hand: what is made up takes seconds for each route."""
    for model, status in (("sottovoce", 200), ("gpt-9", 404)):
        body = {"file": SPEECH, "model": model, "response_format": "verbose_json"}
        case = api_schema[path][method].Case(body=body, media_type="multipart/form-data")
        assert send(case).status_code == status


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_hundreds_of_answers_fit_the_schema(api_schema, path, method):
    assert_answers_fit(api_schema, path, method, num_examples=200 if method == "POST" else 50)


def test_every_route_is_described_with_its_answers_and_errors(api_schema):
    document = api_schema.raw_schema
    assert {(path, method.upper()) for path, item in document["paths"].items() for method in item} == set(OPERATIONS)
    post = document["paths"]["/v1/audio/transcriptions"]["post"]
    assert set(post["responses"]) == {"200", "400", "404", "408", "413", "415", "422", "429", "500", "503", "504"}
    assert set(post["responses"]["200"]["content"]) == {
        "application/json",
        "text/plain",
        "text/vtt",
        "text/event-stream",
    }
    for path, method in OPERATIONS:
        for status, response in document["paths"][path][method.lower()]["responses"].items():
            assert "x-request-id" in response["headers"]
            if status != "200":
                reference = response["content"]["application/json"]["schema"]["$ref"]
                assert reference == "#/components/schemas/ErrorResponse"


EXTENSIONS = {"beam_size", "best_of", "hotwords", "seed", "stream_include_usage", "vad_filter", "without_timestamps"}
"""Fields of other servers that are honoured, or refused by a sentence that names our way."""


def test_every_field_of_the_forms_has_a_description_and_every_reference_an_end(api_schema):
    schemas = api_schema.raw_schema["components"]["schemas"]
    form = schemas["TranscriptionForm"]
    assert set(form["properties"]) == {
        "file",
        "model",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "include",
        "timestamp_granularities",
        "chunking_strategy",
        "stream",
        *EXTENSIONS,
    }
    assert form["properties"]["response_format"]["enum"] == ["json", "text", "srt", "verbose_json", "vtt"]
    assert (form["properties"]["temperature"]["minimum"], form["properties"]["temperature"]["maximum"]) == (0.0, 1.0)
    assert form["additionalProperties"] is False
    for name in ("TranscriptionForm", "TranslationForm"):
        assert all(field["description"] for field in schemas[name]["properties"].values())
    for reference in references(api_schema.raw_schema):
        assert reference.removeprefix("#/components/schemas/") in schemas


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [found for item in part for found in references(item)]
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [found for item in part.values() for found in references(item)]
    return []


def test_the_key_is_part_of_the_schema_where_one_is_wanted(make_client, monkeypatch):
    monkeypatch.setenv("SOME_KEYS", "first")
    document = make_client(api_keys_env="SOME_KEYS").get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"apiKey": {"type": "http", "scheme": "bearer"}}
    for path, item in document["paths"].items():
        for operation in item.values():
            assert ("security" in operation) == ("401" in operation["responses"]) == path.startswith("/v1/")
