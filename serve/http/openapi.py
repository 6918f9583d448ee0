"""The OpenAPI schema of ``/openapi.json`` and ``/docs``: forms, responses, events and errors."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from serve.http import api
from serve.http.forms import TranscriptionForm, TranslationForm

_REF = "#/components/schemas/{model}"
_KEY_SCHEME = "apiKey"
_PUBLIC_TAG = "service"
_DESCRIPTION = (
    "OpenAI's audio API over Whisper models. Every error has OpenAI's shape; `x-request-id` names the request."
)

_ERRORS: Mapping[int, str] = {
    400: "A field that cannot be used, a broken form, or a file that is no audio.",
    401: "No API key, or a wrong one.",
    404: "No such model, or no such path.",
    408: "The upload is too slow.",
    413: "More bytes or more seconds of audio than the limits.",
    415: "The body is not multipart/form-data.",
    422: "The audio decodes but cannot be transcribed: no samples, or samples that are not finite.",
    429: "This API key has too many open requests; `retry-after` says when to try again.",
    500: "An internal error; look for the id in the message in the service's log.",
    503: "The service is at its limit, or no replica answers; `retry-after` says when to try again.",
    504: "No answer within the deadline.",
}
_SPEECH_ERRORS = tuple(_ERRORS)
_ID_HEADER = {
    "x-request-id": {"description": "The id this request has in the service's log.", "schema": {"type": "string"}}
}
_RETRY_HEADER = {"retry-after": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}

_ANSWERS = tuple(model for model in vars(api).values() if isinstance(model, type) and issubclass(model, api.BaseModel))
"""Every wire model, so that a new response needs no entry here."""


class RouteDocs(TypedDict):
    """Arguments for FastAPI's route decorators."""

    response_model: None
    """None: responses are validated by our own models and described below."""
    responses: dict[int | str, dict[str, Any]]
    """Responses by status code, in OpenAPI's shape."""
    openapi_extra: NotRequired[dict[str, Any]]
    """The form, in OpenAPI's shape."""


def speech_docs(form: type[TranscriptionForm] | type[TranslationForm]) -> RouteDocs:
    """Describe a route that takes a form with a recording."""
    content: dict[str, Any] = {
        "application/json": {"schema": {"anyOf": [_ref(api.Transcription), _ref(api.VerboseTranscription)]}},
        "text/plain": {"schema": {"type": "string", "description": "The text, or SRT subtitles."}},
        "text/vtt": {"schema": {"type": "string", "description": "WebVTT subtitles."}},
    }
    if form is TranscriptionForm:
        content["text/event-stream"] = {"itemSchema": _event()}
    return {
        "response_model": None,
        "responses": {200: {"description": "The transcript.", "content": content}, **_errors(*_SPEECH_ERRORS)},
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _ref(form)}}}
        },
    }


def _event() -> dict[str, Any]:
    """Describe one server-sent event, as OpenAPI 3.2 and FastAPI's own streams do."""
    event = {
        "type": "string",
        "description": "A TextDelta. The last event is a TextDone, or an ErrorResponse after an error.",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [_ref(api.TextDelta), _ref(api.TextDone), _ref(api.ErrorResponse)]},
    }
    return {"type": "object", "required": ["data"], "properties": {"data": event}}


def json_docs(answer: type[api.BaseModel], *errors: int, description: str) -> RouteDocs:
    """Describe a route that answers with one JSON model."""
    content = {"application/json": {"schema": _ref(answer)}}
    return {
        "response_model": None,
        "responses": {200: {"description": description, "content": content}, **_errors(*errors)},
    }


def install_schema(application: FastAPI, *, wants_keys: bool) -> None:
    """Make an application return this schema for its routes.

    Args:
        application: whose routes are described.
        wants_keys: whether paths under ``/v1`` need an API key.
    """

    def build() -> dict[str, Any]:
        if application.openapi_schema is None:
            application.openapi_schema = _build(application, wants_keys=wants_keys)
        return application.openapi_schema

    application.openapi = build  # type: ignore[method-assign]  # FastAPI's own way to extend the schema


def _build(application: FastAPI, *, wants_keys: bool) -> dict[str, Any]:
    schema: dict[str, Any] = get_openapi(
        title=application.title,
        version=application.version,
        description=_DESCRIPTION,
        routes=application.routes,
    )
    components: dict[str, Any] = {"schemas": _schemas()}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _finish(operation, needs_key=wants_keys and path.startswith("/v1/"))
    if wants_keys:
        components["securitySchemes"] = {_KEY_SCHEME: {"type": "http", "scheme": "bearer"}}
    return {**schema, "components": components}


def _finish(operation: dict[str, Any], *, needs_key: bool) -> None:
    """Add the headers to every response, and drop the 422 of FastAPI's own validation, which is not used."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]
    if not needs_key:
        responses.pop("401", None)
    for status, response in responses.items():
        response["headers"] = {**_ID_HEADER, **(_RETRY_HEADER if status in ("429", "503") else {})}
    if needs_key:
        operation["security"] = [{_KEY_SCHEME: []}]


def _schemas() -> dict[str, Any]:
    forms = [(form, "validation") for form in (TranscriptionForm, TranslationForm)]
    answers = [(answer, "serialization") for answer in _ANSWERS]
    _, definitions = models_json_schema([*forms, *answers], ref_template=_REF)  # type: ignore[list-item]
    found: dict[str, Any] = definitions["$defs"]
    return dict(sorted(found.items()))


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": _ref(api.ErrorResponse)}}
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}


def _ref(model: type[Any]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
