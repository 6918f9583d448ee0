"""What a request can do wrong, and what the service can fail at; ``problems.py`` turns each into a response.

SottovoceError
├── InvalidRequestError (ValueError)      a form the service cannot use
├── ModelNotFoundError (LookupError)      a model that is not served here
│   └── ModelRefusedError                 a variant that lost too much accuracy in its export
├── ModelLoadError (RuntimeError)         a model whose files are here and cannot be loaded
├── BodyTooLargeError (ValueError)        more bytes than the limit
├── ContentTypeError (TypeError)          a body that is no multipart form
├── UnauthorizedError (PermissionError)   no key, or a wrong one
├── RateLimitError (RuntimeError)         one client has all the requests open that it may
├── OverloadedError (RuntimeError)        every place is taken
├── NotReadyError (RuntimeError)          no transcriber answers
├── TranscriberLostError (RuntimeError)   replicas died while they had the request
└── DeadlineError (TimeoutError)          the answer took too long
"""

from sottovoce.errors import SottovoceError

_MAX_SHOWN = 64  # letters


class InvalidRequestError(SottovoceError, ValueError):
    """A request that cannot be used as it is: the reason, the form field at fault, OpenAI's short name of the fault."""

    def __init__(self, message: str, param: str | None, code: str) -> None:
        super().__init__(message, param, code)

    @property
    def param(self) -> str | None:
        """The form field at fault."""
        param: str | None = self.args[1]
        return param

    @property
    def code(self) -> str:
        """OpenAI's short name of the fault."""
        return str(self.args[2])


def shown(value: str) -> str:
    """Cut what a client sent to what may stand in a message: JSON can spell letters that UTF-8 cannot."""
    written = value.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return written if len(written) <= _MAX_SHOWN else f"{written[:_MAX_SHOWN]}..."


class ModelNotFoundError(SottovoceError, LookupError):
    """A model id that is not served here."""

    sentence = "the model {0!r} does not exist here; GET /v1/models lists those that do"

    def __init__(self, model: str) -> None:
        super().__init__(model)


class ModelRefusedError(ModelNotFoundError):
    """A variant that is there, and that the export gate refused."""

    sentence = "the model {0!r} is not served: {1}; GET /v1/models lists those that are"

    def __init__(self, model: str, reason: str) -> None:
        SottovoceError.__init__(self, model, reason)


class ModelLoadError(SottovoceError, RuntimeError):
    """A model that is listed and cannot be loaded: damaged files, or more weights than the memory budget."""

    sentence = "the model {0!r} cannot be loaded now: {1}"

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)


class BodyTooLargeError(SottovoceError, ValueError):
    """A body above the limit, found by its declared or by its real length."""

    sentence = (
        "the request is larger than the limit of {0} bytes; send a compressed format such as mp3, or cut the audio"
    )

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)


class ContentTypeError(SottovoceError, TypeError):
    """A body that is no multipart form, by its content type."""

    sentence = "unsupported content type {0!r}; send the request as multipart/form-data"

    def __init__(self, content_type: str) -> None:
        super().__init__(content_type)


class UnauthorizedError(SottovoceError, PermissionError):
    """No API key, or one that is not known."""

    sentence = "missing or wrong API key; send it as 'Authorization: Bearer KEY'"

    def __init__(self) -> None:
        super().__init__()


class OverloadedError(SottovoceError, RuntimeError):
    """No place for another request now."""

    sentence = "the service is at its limit of {0} requests; try again in a moment"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)


class RateLimitError(SottovoceError, RuntimeError):
    """One client's requests, as many open as it may have; others are served."""

    sentence = "this API key has {0} requests open, as many as it may; wait for one of them to end"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)


class NotReadyError(SottovoceError, RuntimeError):
    """No transcriber that answers."""

    sentence = "no transcriber has answered within {0:g} s; try again in a moment"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)


class TranscriberLostError(SottovoceError, RuntimeError):
    """The transcriber replicas that had a window died, one after the other."""

    sentence = "{0} transcriber replicas stopped while they had this request; try again in a moment"

    def __init__(self, num_attempts: int) -> None:
        super().__init__(num_attempts)


class DeadlineError(SottovoceError, TimeoutError):
    """An answer that took longer than the deadline."""

    sentence = "no answer within {0:g} s; send shorter audio, or several requests"

    def __init__(self, deadline_s: float) -> None:
        super().__init__(deadline_s)
