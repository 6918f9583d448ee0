"""The service's errors cross processes."""

import pickle

import pytest

from serve import errors
from sottovoce.errors import SottovoceError


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequestError("a {brace}", "file", "invalid_value"),
        errors.ModelNotFoundError("m"),
        errors.ModelRefusedError("m@int8", "WER 0.2 against 0.1"),
        errors.ModelLoadError("m", "a {brace}"),
        errors.BodyTooLargeError(9),
        errors.ContentTypeError("text/{brace}"),
        errors.UnauthorizedError(),
        errors.RateLimitError(9),
        errors.NotReadyError(9.0),
        errors.OverloadedError(9),
        errors.TranscriberLostError(3),
        errors.UnavailableError("the service is stopping"),
        errors.DeadlineError(9.0),
        errors.ServiceLostError("Ray's raylet has ended"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling_with_its_message(error: SottovoceError):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) != ""
