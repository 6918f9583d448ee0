"""A small HTTP/1.1 client over asyncio's streams: hundreds of clients must cost less than the server they measure."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

BOUNDARY = "benchmark"
PATH = "/v1/audio/transcriptions"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server answered."""

    status: int
    seconds: float
    """From the connection's start to the last byte."""
    headers: dict[str, str]
    body: bytes


def speech_form(data: bytes, **fields: str) -> bytes:
    """Return the multipart body of a transcription request."""
    texts = {"model": "sottovoce", "language": "en", **fields}
    head = "".join(
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in texts.items()
    )
    file = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return (head + file).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


class Connection:
    """One connection to 127.0.0.1 for one request."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._started = monotonic()
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def send_head(self, num_bytes: int) -> None:
        """Send the head of a request whose body has so many bytes."""
        lines = (
            f"POST {PATH} HTTP/1.1",
            f"host: 127.0.0.1:{self._port}",
            f"content-type: multipart/form-data; boundary={BOUNDARY}",
            f"content-length: {num_bytes}",
            "connection: close",
        )
        await self.send("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """Wait for the whole answer.

        Raises:
            ConnectionError: the server closed the connection without one.
        """
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server closed the connection without an answer") from error
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "content-length" in headers:  # to the end of the connection, a reset would take the answer with it
            body = await self._reader.readexactly(int(headers["content-length"]))
        else:
            body = await self._reader.read()
        return Answer(status=int(first.split()[1]), seconds=monotonic() - self._started, headers=headers, body=body)


async def post(port: int, body: bytes) -> Answer:
    """Send one request and wait for its answer; an answer may come before the body has been sent."""
    async with Connection(port) as connection:
        await connection.send_head(len(body))
        answering = asyncio.create_task(connection.answer())
        with suppress(ConnectionError):  # refused early: the answer is there
            await connection.send(body)
        return await answering
