"""A decoder without a process, for tests of what surrounds it."""

from typing import Any

from serve.decoding.process import Sink
from serve.decoding.worker import Job, Outcome, decode_job
from sottovoce.audio.encoded import EncodedBytes


class InProcessDecoder:
    """Stands for ``DecoderProcess``."""

    def __init__(self, **_: Any) -> None:
        self.num_kills = 0

    def start(self) -> None:
        pass

    def decode(self, data: bytes, job: Job, sink: Sink) -> float | None:
        for message in decode_job(job, EncodedBytes(data)):
            if not isinstance(message, Outcome):
                sink.append(message)
            elif message.kind == "restart":
                sink.clear()
            elif message.kind == "longer":
                return message.expected_s
        return None

    def kill(self) -> None:
        self.num_kills += 1

    def close(self) -> None:
        pass
