"""A training stream that records by id what each worker reads and trains on, in a file for each process."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sottovoce.data.dataset import SpeechStream
from sottovoce.schema import Example, PcmBatch, Reject, Utterance, Waveform


@dataclass(frozen=True)
class AuditedStream:
    """A stream that records what is read from it, and what its reader then trains on."""

    stream: SpeechStream
    folder: Path
    pause_s: float

    @property
    def utterances(self) -> Sequence[Utterance]:
        """The training split."""
        return self.stream.utterances

    @property
    def kinds(self) -> Sequence[Utterance]:
        """See ``SpeechStream``."""
        return self.stream.kinds

    @property
    def num_speakers(self) -> int:
        """See ``SpeechStream``."""
        return self.stream.num_speakers

    @property
    def durations_s(self) -> NDArray[np.float64]:
        """See ``SpeechStream``."""
        return self.stream.durations_s

    @property
    def examples(self) -> Sequence[Example]:
        """See ``SpeechStream``."""
        return self.stream.examples

    @property
    def cpus_per_task(self) -> float:
        """See ``SpeechStream``."""
        return self.stream.cpus_per_task

    @property
    def tasks_per_worker(self) -> int:
        """See ``SpeechStream``."""
        return self.stream.tasks_per_worker

    @property
    def prefetch_batches(self) -> int:
        """See ``SpeechStream``."""
        return self.stream.prefetch_batches

    def steps_per_epoch(self, num_microbatches: int) -> int:
        """See ``SpeechStream``."""
        return self.stream.steps_per_epoch(num_microbatches)

    def fingerprint(self, *, num_microbatches: int, seed: int) -> str:
        """See ``SpeechStream``."""
        return self.stream.fingerprint(num_microbatches=num_microbatches, seed=seed)

    def batches(
        self, *, microbatches: Sequence[int], num_microbatches: int, seed: int, first_step: int, last_step: int
    ) -> Iterator[PcmBatch]:
        """See ``SpeechStream``; from the first batch on, this process records every step it takes."""
        path = self.folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)  # unbuffered: a written line survives a SIGKILL
        _follow_steps(file)
        for batch in self.stream.batches(
            microbatches=microbatches,
            num_microbatches=num_microbatches,
            seed=seed,
            first_step=first_step,
            last_step=last_step,
        ):
            ids = [one.id for example in batch.examples for one in example.utterances]
            _note(file, "read", step=batch.step, microbatch=batch.microbatch, ids=ids)
            time.sleep(self.pause_s)
            yield batch

    def recordings(self, batches: Sequence[Sequence[Utterance]]) -> Iterator[Sequence[Waveform | Reject]]:
        """See ``SpeechStream``; validation is not recorded."""
        return self.stream.recordings(batches)


def _follow_steps(file: int) -> None:
    """Record the batches of each step that this process takes from now on, once its weights have changed."""
    from sottovoce.train.step import Stepper  # here: Ray Train's controller imports this module and needs no torch

    take: Callable[..., Any] = Stepper.step

    def take_and_note(self: Stepper, batches: Sequence[Any], **settings: Any) -> Any:  # noqa: ANN401 - passed on as it is
        outcome = take(self, batches, **settings)
        for batch in batches:
            if batch.ids:
                _note(file, "trained", step=batch.step, microbatch=batch.microbatch, ids=list(batch.ids))
        return outcome

    Stepper.step = take_and_note  # type: ignore[method-assign]  # the loop has no hook, and needs none but here


def _note(file: int, what: Literal["read", "trained"], *, step: int, microbatch: int, ids: Sequence[str]) -> None:
    line = {"what": what, "time_ns": time.time_ns(), "step": step, "microbatch": microbatch, "ids": list(ids)}
    os.write(file, (json.dumps(line) + "\n").encode())
