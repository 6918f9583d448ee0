"""Each error has its status, and what OpenAI calls it."""

import pytest
from starlette.exceptions import HTTPException

from serve import errors
from serve.http.problems import describe_problem, problem_response
from sottovoce.errors import (
    AudioDecodeError,
    AudioExpansionError,
    AudioTooLongError,
    EmptyAudioError,
    LanguageError,
    NonFiniteAudioError,
    WordTimesUnavailableError,
)


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (errors.InvalidRequestError("no", "prompt", "invalid_value"), 400, "invalid_value", "prompt"),
        (AudioDecodeError("it", "torn"), 400, "invalid_audio", "file"),
        (LanguageError("xx"), 400, "unsupported_language", "language"),
        (WordTimesUnavailableError("onnx"), 400, "unsupported_value", "timestamp_granularities"),
        (AudioExpansionError("it", "too much"), 400, "invalid_audio", "file"),
        (errors.UnauthorizedError(), 401, "invalid_api_key", None),
        (errors.ModelNotFoundError("m"), 404, "model_not_found", "model"),
        (errors.ModelRefusedError("m", "it lost"), 404, "model_not_found", "model"),
        (HTTPException(404), 404, "unknown_url", None),
        (HTTPException(405), 405, None, None),
        (errors.SlowUploadError(9, 5.0), 408, "upload_timeout", "file"),
        (errors.BodyTooLargeError(9), 413, "request_too_large", "file"),
        (AudioTooLongError("it", 9.0), 413, "audio_too_long", "file"),
        (errors.ContentTypeError("text/html"), 415, "unsupported_content_type", None),
        (EmptyAudioError("it"), 422, "unusable_audio", "file"),
        (NonFiniteAudioError("it", 9), 422, "unusable_audio", "file"),
        (errors.RateLimitError(9), 429, "rate_limit_exceeded", None),
        (ZeroDivisionError("secret"), 500, "internal_error", None),
        (errors.OverloadedError(9), 503, "overloaded", None),
        (errors.AddressLimitError(9), 503, "overloaded", None),
        (errors.DecodedAudioError(9), 503, "overloaded", None),
        (errors.NotReadyError(9.0), 503, "not_ready", None),
        (errors.TranscriberLostError(3), 503, "unavailable", None),
        (errors.UnavailableError("the service is stopping"), 503, "unavailable", None),
        (errors.ModelLoadError("m", "damaged"), 503, "model_unavailable", "model"),
        (errors.DeadlineError(9.0), 504, "deadline_exceeded", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_has_its_status_and_code(error, status, code, param):
    problem = describe_problem(error, request_id="id")
    assert (problem.status, problem.body.code, problem.body.param) == (status, code, param)
    assert problem.body.message
    assert "secret" not in problem.body.message
    response = problem_response(error, request_id="id")
    assert ("retry-after" in response.headers) == (status in (429, 503))
