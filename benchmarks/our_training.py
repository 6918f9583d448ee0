"""What the training benchmarks share: speech without files, and the pace of a finished run without its first steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import draw_voice
from sottovoce.audio.waveform import to_pcm
from sottovoce.data.dataset import decode_here
from sottovoce.schema import Example, PcmBatch, Reject, Utterance, Waveform
from sottovoce.train.metrics.curves import CURVES_FILE, read_curves


@dataclass(frozen=True)
class Pace:
    """How a run went once it was under way."""

    num_steps: int
    seconds: float
    audio_s: float

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return self.seconds / self.num_steps


def read_pace(output: Path, *, num_warmup_steps: int) -> Pace:
    """Read the pace of a run from its curves, logged every ``num_warmup_steps``; the first of them do not count.

    A run logs at each point the pace since the one before.
    """
    points = [point for point in read_curves(output / CURVES_FILE) if "train/steps_per_s" in point.values]
    seconds = audio_s = 0.0
    for before, point in pairwise(points):
        passed_s = (point.step - before.step) / point.values["train/steps_per_s"]
        seconds += passed_s
        audio_s += passed_s * point.values["train/audio_s_per_s"]
    assert points[0].step == num_warmup_steps, "the steps that do not count are the first interval"
    return Pace(points[-1].step - num_warmup_steps, seconds, audio_s)


@dataclass(frozen=True)
class ToneStream:
    """A ``TrainingStream`` of one recording again and again, ready in memory: what is timed is the training alone."""

    recording: Utterance
    batch_size: int
    num_steps: int

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """As many as a batch holds."""
        return tuple(Example(utterances=(self.recording,)) for _ in range(self.batch_size))

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """The recording."""
        return (self.recording,)

    @property
    def kinds(self) -> tuple[Utterance, ...]:
        """The recording."""
        return (self.recording,)

    @property
    def num_speakers(self) -> int:
        """None is named."""
        return 0

    @property
    def durations_s(self) -> NDArray[np.float64]:
        """(E,) all the same."""
        return np.full(self.batch_size, self.recording.duration_s)

    @property
    def cpus_per_task(self) -> None:
        """No task decodes."""

    @property
    def tasks_per_worker(self) -> None:
        """Say that nothing is decoded."""

    @property
    def prefetch_batches(self) -> None:
        """Say that nothing is decoded."""

    def steps_per_epoch(self, num_microbatches: int) -> int:
        """Return the steps of an epoch."""
        return self.num_steps

    def fingerprint(self, *, num_microbatches: int, seed: int) -> str:
        """Identify what is read at every step."""
        return f"{self.recording.id} {num_microbatches} {seed}"

    def batches(
        self, *, microbatches: Sequence[int], num_microbatches: int, seed: int, first_step: int, last_step: int
    ) -> Iterator[PcmBatch]:
        """Return the same batch for these microbatches of a range of steps."""
        pcm = to_pcm(draw_voice(np.random.default_rng(seed), self.recording.duration_s))
        recordings = ((pcm[: round(self.recording.duration_s * 16_000)],),) * self.batch_size
        for step in range(first_step, last_step):
            for microbatch in microbatches:
                yield PcmBatch(
                    step=step, microbatch=microbatch, epoch=0, examples=self.examples, recordings=recordings, rejects=()
                )

    def recordings(self, batches: Sequence[Sequence[Utterance]]) -> Iterator[Sequence[Waveform | Reject]]:
        """Decode validation in this process."""
        return decode_here(batches)
