"""Parse a multipart form while it arrives, within the limits on its size and its time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serve.errors import BodyTooLargeError, ContentTypeError, InvalidRequestError, SlowUploadError, shown

_MAX_FILES = 1
_MAX_FIELDS = 32
# Of 640 clients on two cores, many bodies waited for longer than 5 s in front of the gateway: they are not to blame.
_GRACE_S = 20.0  # before the lowest rate counts
# The same for one that arrives in small pieces, as none does that waited. Each piece costs the proxy and the gateway
# milliseconds: 700 bodies that trickle take both cores.
_TRICKLING_GRACE_S = 2.0
_SLOW_AFTER_S = 10.0  # an upload gets this long before it may have to make room for others
_TRICKLING_AFTER_S = 1.0  # one that arrives in small pieces; what waited in front of the gateway comes in large ones
_SMALL_PIECE_BYTES = 1024
_SLOW_FACTOR = 16  # of the lowest rate: by default 32 kB/s, at which 16-bit speech plays
_SPOOL_BYTES = 256 * 2**10  # of each open upload in memory: eight seconds of 16-bit speech
_MAX_FIELD_BYTES = 16 * 2**10  # a prompt of 224 tokens needs one or two KiB
_FILE = "file"


class _NoFilenameError(MultiPartException):
    """The recording's part has no filename, so that it counts as text."""


class _FormParser(MultiPartParser):
    """Refuse a recording without a filename before its bytes exceed the limit for texts."""

    def on_headers_finished(self) -> None:
        """Check the part whose headers have been read."""
        super().on_headers_finished()
        if self._current_part.field_name == _FILE and self._current_part.file is None:
            raise _NoFilenameError(_FILE)

    def close_files(self) -> None:
        """Close every file that was begun, also one whose part was cut off and is in no form."""
        for file in self._files_to_close_on_error:
            file.close()


class Arrival:
    """One body that arrives, from the request's first byte on."""

    def __init__(self, *, timeout_s: float, min_bytes_per_s: float) -> None:
        """Start now.

        Args:
            timeout_s: seconds after which it must be complete.
            min_bytes_per_s: lowest mean rate, apart from 20 seconds at the beginning; 2 where it arrives in pieces of
                less than a kilobyte.
        """
        self._timeout_s, self._min_bytes_per_s = timeout_s, min_bytes_per_s
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._num_bytes = self._num_pieces = 0
        self._timeout: asyncio.Timeout | None = None
        self._is_ended = False

    @property
    def is_under_way(self) -> bool:
        """Whether the body has not arrived yet."""
        return self._timeout is not None

    @property
    def age_s(self) -> float:
        """Seconds since the request's first byte."""
        return self._clock() - self._started

    @property
    def is_slow(self) -> bool:
        """Whether the client sends so slowly that the upload may have to make room for others."""
        is_old = self.age_s > (_TRICKLING_AFTER_S if self._is_trickling else _SLOW_AFTER_S)
        return self.is_under_way and is_old and self.bytes_per_s < _SLOW_FACTOR * self._min_bytes_per_s

    @property
    def _is_trickling(self) -> bool:
        return self._num_pieces > 1 and self._num_bytes < self._num_pieces * _SMALL_PIECE_BYTES

    @property
    def bytes_per_s(self) -> float:
        """Mean rate so far."""
        return self._num_bytes / max(self.age_s, 1e-3)

    @asynccontextmanager
    async def awaited(self) -> AsyncIterator[None]:
        """Cancel the block, which reads the body, when the body is too slow.

        Raises:
            SlowUploadError: it has not arrived in time, or had to make room for others.
        """
        try:
            async with asyncio.timeout_at(self._due()) as self._timeout:
                yield
        except TimeoutError as error:
            if self._timeout is not None and self._timeout.expired():
                raise SlowUploadError(self._num_bytes, self.age_s) from error
            raise
        finally:
            self._timeout = None  # see ``Deadline.held``

    def count(self, num_bytes: int) -> None:
        """Count bytes that have arrived."""
        self._num_bytes += num_bytes
        self._num_pieces += 1
        if not self._is_ended:
            self._reschedule(self._due())

    def end(self) -> None:
        """End the upload now."""
        self._is_ended = True
        self._reschedule(self._clock())

    def _reschedule(self, at_s: float) -> None:
        if self._timeout is not None and not self._timeout.expired():  # else its task has yet to notice
            self._timeout.reschedule(at_s)

    def _due(self) -> float:
        """Return when the next byte must be there."""
        grace_s = _TRICKLING_GRACE_S if self._is_trickling else _GRACE_S
        return self._started + min(self._timeout_s, grace_s + self._num_bytes / self._min_bytes_per_s)


@asynccontextmanager
async def read_form(request: Request, *, arrival: Arrival, max_body_bytes: int) -> AsyncIterator[FormData]:
    """Parse a multipart body. A file above a quarter of a MiB is spooled to disk; it is closed at the end.

    Args:
        request: whose body has not been read.
        arrival: of its body, which counts its bytes and ends it when it is too slow.
        max_body_bytes: the largest body.

    Raises:
        BodyTooLargeError: more bytes than the limit, declared or received.
        ContentTypeError: the body is not a multipart form.
        InvalidRequestError: a broken body, too many or too large fields, or text that is not Unicode.
        SlowUploadError: the body arrives too slowly.
    """
    _check_headers(request, max_body_bytes)
    parser = _FormParser(
        request.headers,
        _limited(request, arrival, max_body_bytes),
        max_files=_MAX_FILES,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    parser.spool_max_size = _SPOOL_BYTES
    try:
        async with arrival.awaited():
            form = await _parse(parser)
        for name, value in form.multi_items():
            _check_text(name, value)
        yield form
    finally:
        parser.close_files()


async def _parse(parser: _FormParser) -> FormData:
    """Parse the body.

    Raises:
        InvalidRequestError: the body is broken, or its recording has no filename.
    """
    try:
        return await parser.parse()
    except _NoFilenameError as error:
        message = "file must be a file part with a filename, not text; name it, as curl's -F file=@speech.wav does"
        raise InvalidRequestError(message, _FILE, "invalid_value") from error
    except (MultiPartException, UnicodeError) as error:  # the latter: a charset that is none
        raise InvalidRequestError(f"the form cannot be read: {shown(str(error))}", None, "invalid_form") from error


def _check_headers(request: Request, max_body_bytes: int) -> None:
    content_type = request.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != "multipart/form-data":
        raise ContentTypeError(shown(content_type))
    declared = request.headers.get("content-length")
    if declared is None:
        return  # a chunked body: counted while it arrives
    if not (declared.isascii() and declared.isdigit()):
        message = (
            f"content-length {shown(declared)!r} is not a number of bytes; send the body's length, or send it in chunks"
        )
        raise InvalidRequestError(message, None, "invalid_content_length")
    if int(declared) > max_body_bytes:
        raise BodyTooLargeError(max_body_bytes)


def _check_text(name: str, value: str | UploadFile) -> None:
    """Refuse characters that UTF-8 cannot encode: some charsets yield them, and no tokenizer accepts them."""
    for text in (name, value if isinstance(value, str) else value.filename or ""):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            param = shown(name)
            raise InvalidRequestError(
                f"{param} is not Unicode text; send it as UTF-8", param, "invalid_value"
            ) from error


async def _limited(request: Request, arrival: Arrival, max_body_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body's chunks until they exceed the limit, whatever the headers declare."""
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        arrival.count(len(chunk))
        if num_bytes > max_body_bytes:
            raise BodyTooLargeError(max_body_bytes)
        yield chunk
