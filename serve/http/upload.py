"""Parse a multipart form while it arrives, within the limits."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serve.errors import BodyTooLargeError, ContentTypeError, InvalidRequestError, shown

_MAX_FILES = 1
_MAX_FIELDS = 32
_MAX_FIELD_BYTES = 16 * 2**10  # a prompt of 224 tokens needs one or two KiB


@asynccontextmanager
async def read_form(request: Request, *, max_body_bytes: int) -> AsyncIterator[FormData]:
    """Parse a multipart body. A file above 1 MiB is spooled to disk; it is closed at the end.

    Raises:
        BodyTooLargeError: more bytes than the limit, declared or received.
        ContentTypeError: the body is not a multipart form.
        InvalidRequestError: a broken body, too many or too large fields, or text that is not Unicode.
    """
    _check_headers(request, max_body_bytes)
    parser = MultiPartParser(
        request.headers,
        _limited(request, max_body_bytes),
        max_files=_MAX_FILES,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # the latter: a charset that is none
        raise InvalidRequestError(f"the form cannot be read: {shown(str(error))}", None, "invalid_form") from error
    try:
        for name, value in form.multi_items():
            _check_text(name, value)
        yield form
    finally:
        await form.close()


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


async def _limited(request: Request, max_body_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body's chunks until they exceed the limit, whatever the headers declare."""
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > max_body_bytes:
            raise BodyTooLargeError(max_body_bytes)
        yield chunk
