"""The decoder's process: ``python -m serve.decoding.worker FD``. It decodes one recording after the other.

Each job arrives as two messages: its limits as JSON, and the encoded bytes. The answer is one message for each block of
samples; an empty message announces an outcome in JSON (see ``Outcome``), and all outcomes but ``restart`` are the last.
"""

import json
import os
import resource
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from sottovoce.audio.decode import decode_pcm_blocks
from sottovoce.audio.encoded import EncodedBytes
from sottovoce.errors import AudioDecodeError, AudioError, AudioExpansionError
from sottovoce.schema import SAMPLING_RATE

SOURCE = "the uploaded file"
"""How messages name a recording: never by the client's file name, which would end up in logs."""
_ROOM_BYTES = 768 * 2**20  # address space beyond the libraries: blocks are MiB, and FFmpeg's tables of a container more


@dataclass(frozen=True, kw_only=True)
class Job:
    """The limits of one recording."""

    max_duration_s: float
    """Longest audio."""
    first_s: float | None = None
    """End after so many seconds with the outcome ``longer``, if there are more; None decodes everything."""
    first_decoded_bytes: int | None = None
    """With ``first_s``: end also after so many decoded bytes over all channels."""
    max_cpu_s: int
    """Processor time after which the kernel ends this process."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What announces itself between blocks. ``kind`` is done, restart, longer or error."""

    kind: str
    """restart: all blocks so far are to be dropped, and others follow. longer: see ``Job.first_s``."""
    expected_s: float = 0.0
    """With longer: the duration by the share of the bytes that was read."""
    error: str = ""
    """With error: the class of ``sottovoce.errors``."""
    fields: tuple[Any, ...] = ()
    """With error: the class's arguments."""


def main(descriptor: int) -> None:
    """Answer jobs until the other side closes the connection."""
    _limit_memory()
    connection = Connection(descriptor)
    try:
        while True:
            job = Job(**json.loads(connection.recv_bytes()))
            _answer(connection, job, EncodedBytes(connection.recv_bytes()))
    except (EOFError, ConnectionError):
        return


def _answer(connection: Connection, job: Job, file: EncodedBytes) -> None:
    _limit_cpu(job.max_cpu_s)
    try:
        with closing(decode_job(job, file)) as messages:
            for message in messages:
                _send(connection, message)
    except AudioError as error:
        _send(connection, Outcome(kind="error", error=type(error).__name__, fields=error.args))
    except MemoryError:
        fault = AudioDecodeError(SOURCE, "decoding it needs more memory than any recording")
        _send(connection, Outcome(kind="error", error=type(fault).__name__, fields=fault.args))


def decode_job(job: Job, file: EncodedBytes) -> Generator[bytes | Outcome, None, None]:
    """Yield blocks of int16 samples, and outcomes; the last one is no error.

    Raises:
        AudioError: see ``decode_pcm_blocks``.
    """
    num_bytes = 0
    first_bytes = None if job.first_s is None else 2 * SAMPLING_RATE * job.first_s
    blocks = decode_pcm_blocks(
        file, source=SOURCE, max_duration_s=job.max_duration_s, max_decoded_bytes=job.first_decoded_bytes
    )
    try:
        for block in blocks:
            if block is None:
                num_bytes = 0
                yield Outcome(kind="restart")
            elif len(block):
                num_bytes += block.nbytes
                yield block.tobytes()
            if first_bytes is not None and num_bytes > first_bytes:
                yield Outcome(kind="longer", expected_s=_expected_s(file, num_bytes))
                return
    except AudioExpansionError:
        if job.first_decoded_bytes is None:
            raise
        yield Outcome(kind="longer", expected_s=_expected_s(file, num_bytes))
    else:
        yield Outcome(kind="done")


def _expected_s(file: EncodedBytes, num_bytes: int) -> float:
    """Return how long a recording will be, by the share of its bytes that made so many bytes of samples."""
    share = min(max(file.tell(), 1) / file.num_bytes, 1.0)
    return num_bytes / (2 * SAMPLING_RATE) / share


def _send(connection: Connection, message: bytes | Outcome) -> None:
    if isinstance(message, Outcome):
        connection.send_bytes(b"")
        connection.send_bytes(json.dumps(asdict(message)).encode())
    else:
        connection.send_bytes(message)


def _limit_cpu(seconds: int) -> None:
    """Let the kernel end this process if the next job takes longer, also within the libraries."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = round(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _limit_memory() -> None:
    """Bound the address space, where the system says how large it is, and write no memory to disk when it crashes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no Path for a file of the kernel
            num_pages = int(file.read().split()[0])
    except OSError:  # not Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (num_pages * os.sysconf("SC_PAGE_SIZE") + _ROOM_BYTES, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
