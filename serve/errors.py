"""Errors of requests and of the service; ``http/problems.py`` turns each into a response.

SottovoceError
├── InvalidRequestError (ValueError)      an invalid form
├── ModelNotFoundError (LookupError)      a model that is not served
│   └── ModelRefusedError                 a variant that the export gate refused
├── ModelLoadError (RuntimeError)         a model whose files cannot be loaded
├── BodyTooLargeError (ValueError)        more bytes than the limit
├── ContentTypeError (TypeError)          a body that is not a multipart form
├── UnauthorizedError (PermissionError)   a missing or wrong API key
├── RateLimitError (RuntimeError)         too many open requests of one client
├── OverloadedError (RuntimeError)        the service is at its limit
│   ├── AddressLimitError                 too many open requests from one address
│   └── DecodedAudioError                 as much decoded audio as fits into memory
├── SlowUploadError (TimeoutError)        a body that arrives too slowly
├── NotReadyError (RuntimeError)          no transcriber answers
├── TranscriberLostError (RuntimeError)   replicas died while they handled a request
├── UnavailableError (RuntimeError)       no gateway takes the request
├── DeadlineError (TimeoutError)          the deadline passed
└── ServiceLostError (RuntimeError)       Ray or Serve ended under the process that started the service
"""

from sottovoce.errors import SottovoceError

_MAX_SHOWN = 64  # letters


class InvalidRequestError(SottovoceError, ValueError):
    """An invalid request: the reason, the form field, and OpenAI's error code."""

    def __init__(self, message: str, param: str | None, code: str) -> None:
        super().__init__(message, param, code)

    @property
    def param(self) -> str | None:
        """The invalid form field."""
        param: str | None = self.args[1]
        return param

    @property
    def code(self) -> str:
        """OpenAI's error code."""
        return str(self.args[2])


def shown(value: str) -> str:
    """Return a client's text shortened and escaped for a message: JSON can hold characters that UTF-8 cannot."""
    written = value.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return written if len(written) <= _MAX_SHOWN else f"{written[:_MAX_SHOWN]}..."


class ModelNotFoundError(SottovoceError, LookupError):
    """A model id that is not served here."""

    sentence = "the model {0!r} does not exist here; GET /v1/models lists those that do"

    def __init__(self, model: str) -> None:
        super().__init__(model)


class ModelRefusedError(ModelNotFoundError):
    """A variant that exists and was refused by the export gate."""

    sentence = "the model {0!r} is not served: {1}; GET /v1/models lists those that are"

    def __init__(self, model: str, reason: str) -> None:
        SottovoceError.__init__(self, model, reason)


class ModelLoadError(SottovoceError, RuntimeError):
    """A listed model that cannot be loaded: damaged files, or more memory than the budget."""

    sentence = "the model {0!r} cannot be loaded now: {1}"

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)


class BodyTooLargeError(SottovoceError, ValueError):
    """A body above the limit, by its declared or its actual length."""

    sentence = (
        "the request is larger than the limit of {0} bytes; send a compressed format such as mp3, or cut the audio"
    )

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)


class ContentTypeError(SottovoceError, TypeError):
    """A body whose content type is not a multipart form."""

    sentence = "unsupported content type {0!r}; send the request as multipart/form-data"

    def __init__(self, content_type: str) -> None:
        super().__init__(content_type)


class UnauthorizedError(SottovoceError, PermissionError):
    """A missing or unknown API key."""

    sentence = "missing or wrong API key; send it as 'Authorization: Bearer KEY'"

    def __init__(self) -> None:
        super().__init__()


class OverloadedError(SottovoceError, RuntimeError):
    """The service cannot accept another request now."""

    sentence = "the service is at its limit of {0} requests; try again in a moment"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)


class CrowdedError(OverloadedError):
    """A gateway has just refused a request for lack of room; the proxy refuses others in its place."""

    sentence = "the service is at its limit; try again in a moment"

    def __init__(self) -> None:
        super().__init__(0)


class AddressLimitError(OverloadedError):
    """One address, behind which there may be many clients, has as many open requests as allowed."""

    sentence = "the service already has {0} open requests from this address, the limit; try again in a moment"


class DecodedAudioError(OverloadedError):
    """The gateway holds as much decoded audio as it may."""

    sentence = "the service holds all the decoded audio that fits into its {0} bytes; try again in a moment"


class SlowUploadError(SottovoceError, TimeoutError):
    """A body that arrives slower than allowed, or slower than others while there is no room for all."""

    sentence = "the upload was too slow: {0} bytes in {1:.1f} s; send compressed audio, or use a faster connection"

    def __init__(self, num_bytes: int, seconds: float) -> None:
        super().__init__(num_bytes, seconds)


class RateLimitError(SottovoceError, RuntimeError):
    """One client has as many open requests as allowed; other clients are served."""

    sentence = "this API key already has {0} open requests, the limit; wait for one of them to end"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)


class NotReadyError(SottovoceError, RuntimeError):
    """No transcriber answers."""

    sentence = "no transcriber answered within {0:g} s; try again in a moment"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)


class TranscriberLostError(SottovoceError, RuntimeError):
    """The replicas that handled a window died, one after the other."""

    sentence = "{0} transcriber replicas stopped while they handled this request; try again in a moment"

    def __init__(self, num_attempts: int) -> None:
        super().__init__(num_attempts)


class UnavailableError(SottovoceError, RuntimeError):
    """No gateway takes the request: they are stopping, starting, or stopped while they handled it."""

    sentence = "{0}; try again in a moment"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class DeadlineError(SottovoceError, TimeoutError):
    """The deadline passed before the answer was complete."""

    sentence = "no answer within {0:g} s; send shorter audio, or several requests"

    def __init__(self, deadline_s: float) -> None:
        super().__init__(deadline_s)


class ServiceLostError(SottovoceError, RuntimeError):
    """Ray or Serve ended under the process that started the service."""

    sentence = "{0}, and the service with it; start it again, or let a supervisor restart this process"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
