"""A decoder in a process of its own, seen from the gateway: started when needed, killed when it must stop."""

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Protocol

from serve.decoding.worker import SOURCE, Job, Outcome
from sottovoce import errors
from sottovoce.errors import AudioDecodeError, AudioError

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_LOWEST_PRIORITY = 19

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Receives the samples of one recording."""

    def append(self, block: bytes) -> None:
        """Add int16 samples.

        Raises:
            OverloadedError: the gateway has no memory left for them.
        """
        ...

    def clear(self) -> None:
        """Drop all samples so far."""
        ...


class Decoder(Protocol):
    """Decodes one recording at a time; a thread owns it."""

    def start(self) -> None:
        """Start now, so that the first recording need not wait for it."""
        ...

    def decode(self, data: bytes, job: Job, sink: Sink) -> float | None:
        """Decode a recording into a sink.

        Returns:
            None at its end; the seconds it is expected to last if it is longer than ``Job.first_s``.

        Raises:
            AudioError: it cannot be used.
            OverloadedError: from the sink.
        """
        ...

    def kill(self) -> None:
        """Stop what it does now; the next recording finds a new process. Any thread may call it."""
        ...

    def close(self) -> None:
        """End it and wait for its end."""
        ...


class DecoderProcess:
    """Runs ``worker.py``."""

    def __init__(self, *, yields: bool, silence_s: int) -> None:
        """Start nothing yet.

        Args:
            silence_s: seconds after which a process that neither reads nor writes is killed.
            yields: whether the process runs while nobody else wants the processor.
        """
        self._yields = yields
        self._silence_s = silence_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_killed = False

    def start(self) -> None:
        """Start the process."""
        self._connect()

    def decode(self, data: bytes, job: Job, sink: Sink) -> float | None:
        """Decode a recording; see ``Decoder``. A process that died before is replaced."""
        connection = self._connect()
        try:
            connection.send_bytes(json.dumps(asdict(job)).encode())
            connection.send_bytes(data)
            return _receive(connection, sink)
        except (EOFError, ConnectionError) as error:
            raise AudioDecodeError(SOURCE, self._why_it_ended(job)) from error
        except BlockingIOError as error:
            self.kill()
            _log.error("a decoder process was silent for %d s", self._silence_s)
            raise AudioDecodeError(SOURCE, "the decoder cannot read it") from error
        except AudioError:
            raise  # the process waits for its next job
        except BaseException:
            self.kill()  # it is still sending this one
            raise

    def kill(self) -> None:
        """End the process at once."""
        self._is_killed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def close(self) -> None:
        """End the process and wait for it."""
        self.kill()
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait()
        self._process = self._connection = None
        self._is_killed = False

    def _connect(self) -> Connection:
        is_alive = self._process is not None and self._process.poll() is None and not self._is_killed
        if is_alive and self._connection is not None:
            return self._connection
        self.close()
        ours, theirs = socket.socketpair()
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", self._silence_s, 0))
        # Not multiprocessing's spawn: it would import the main module of a Ray worker, and Ray with it.
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "serve.decoding.worker", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C must not reach it: requests that are being answered need it
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        if self._yields:
            _yield_processor(self._process.pid)
        self._connection = Connection(ours.detach())
        return self._connection

    def _why_it_ended(self, job: Job) -> str:
        status = None if self._process is None else self._process.wait()
        if status == -signal.SIGXCPU:
            return f"decoding it takes more than {job.max_cpu_s} s of processor time"
        if status != -signal.SIGKILL:  # ours, or the kernel's for want of memory
            _log.error("a decoder process ended with status %s", status)
        return "the decoder cannot read it"


def _yield_processor(pid: int) -> None:
    """Let a process have a twelfth of the processor that a worker of Ray gets beside it.

    Ray's workers have a niceness of 15, so that the highest one, 19, leaves it two fifths.
    """
    if sys.platform == "linux":
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.setpriority(os.PRIO_PROCESS, pid, _LOWEST_PRIORITY)


def _receive(connection: Connection, sink: Sink) -> float | None:
    """Pass blocks to the sink until the last outcome."""
    while True:
        block = connection.recv_bytes()
        if block:
            sink.append(block)
            continue
        outcome = Outcome(**json.loads(connection.recv_bytes()))
        if outcome.kind == "error":
            error_class: Callable[..., AudioError] = getattr(errors, outcome.error)
            raise error_class(*outcome.fields)
        if outcome.kind != "restart":
            return outcome.expected_s if outcome.kind == "longer" else None
        sink.clear()
