"""The work of a Ray task of the stream: decode, augment and pack the recordings of a few steps.

The data that tasks share is in the object store once, as columns that a task reads without copying: a task starts as
fast with a million utterances as with ten.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sottovoce.audio.augmentation.augment import Augmenter
from sottovoce.audio.decode import read_audio
from sottovoce.audio.waveform import to_pcm
from sottovoce.data.batch_plan import BatchPlan, GivenBatches
from sottovoce.data.check import reject_reason
from sottovoce.data.utterance_table import ExampleTable, Rows
from sottovoce.errors import AudioError, RowsLostError
from sottovoce.schema import Example, Pcm, PcmBatch, Reject, RejectReason, Utterance, Waveform

Samples: TypeAlias = Pcm | Waveform

BATCH_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("microbatch", pa.int64()),
        ("pcm", pa.large_binary()),  # the samples of all recordings, concatenated: int16, or float32 of validation
        ("num_samples", pa.list_(pa.int32())),  # of each recording; 0 if it could not be decoded
        ("rejects", pa.list_(pa.string())),  # JSON of a Reject for each of these
    ]
)
"""Schema of the Dataset: a row is one microbatch of one step."""


@dataclass(frozen=True, eq=False)
class SpeechTable:
    """The locations of the recordings of all examples, as columns that may hold other utterances too."""

    ids: pa.Array
    audio: pa.Array
    start_s: NDArray[np.float64]
    duration_s: NDArray[np.float64]
    rows: Rows
    """Row of each utterance in these columns, example after example."""
    first: Rows
    """(E + 1,) index of each example's first utterance, and the number of utterances."""


def build_table(examples: Sequence[Example]) -> SpeechTable:
    """Build the columns that tasks need from examples."""
    table = ExampleTable.of(examples)
    batch = table.utterances.batch
    return SpeechTable(
        ids=batch.column("id"),
        audio=batch.column("audio"),
        start_s=batch.column("start_s").to_numpy(),
        duration_s=batch.column("duration_s").to_numpy(),
        rows=table.utterances.rows,
        first=table.first,
    )


@dataclass(frozen=True, eq=False)
class BatchReader:
    """Reads the batches of a plan, on any machine that can read the recordings."""

    table: SpeechTable
    plan: BatchPlan | GivenBatches
    augmenter: Augmenter | None
    """Augments each utterance; None for no augmentation."""
    max_example_s: float
    """Augmentation makes no example longer than this."""
    is_exact: bool = False
    """Whether samples stay float32, so that validation measures what a recognizer of its own would."""

    def read(self, step: int, *, microbatch: int) -> pa.Table:
        """Decode the recordings of one microbatch of one step; a failed one has no samples and becomes a Reject.

        Returns:
            One row of ``BATCH_SCHEMA``.
        """
        epoch = self.plan.epoch_of(step)
        recordings: list[Samples] = []
        rejects: list[str] = []
        for example in self.plan.batch(step, microbatch=microbatch).tolist():
            first, stop = (int(index) for index in self.table.first[example : example + 2])
            rows = self.table.rows[first:stop]
            stretch = self.max_example_s / float(self.table.duration_s[rows].sum())
            for row in rows.tolist():
                read = self.read_waveform if self.is_exact else self.read_recording
                outcome: Samples | Reject = read(row, epoch=epoch, stretch=stretch)
                if isinstance(outcome, Reject):
                    rejects.append(outcome.model_dump_json())
                recordings.append(np.zeros(0, np.int16) if isinstance(outcome, Reject) else outcome)
        num_samples = [len(pcm) for pcm in recordings]
        columns = [[step], [microbatch], _one_binary(recordings), [num_samples], [rejects]]
        return pa.table(dict(zip(BATCH_SCHEMA.names, columns, strict=True)), schema=BATCH_SCHEMA)

    def read_recording(self, row: int, *, epoch: int, stretch: float) -> Pcm | Reject:
        """Read as ``read_waveform``, and round to int16."""
        outcome = self.read_waveform(row, epoch=epoch, stretch=stretch)
        return outcome if isinstance(outcome, Reject) else to_pcm(outcome)

    def read_waveform(self, row: int, *, epoch: int, stretch: float) -> Waveform | Reject:
        """Decode and augment one utterance, or say why it cannot be used.

        Args:
            row: of the utterance in the table.
            epoch: determines the augmentation.
            stretch: largest factor by which augmentation may lengthen it.

        Returns:
            (S,) float32.
        """
        audio = self.table.audio[row].as_py()
        try:
            waveform = read_audio(
                audio, start_s=float(self.table.start_s[row]), duration_s=float(self.table.duration_s[row])
            )
        except FileNotFoundError:
            return self._refuse(row, "missing_file", f"there is no file {audio}")
        except AudioError as error:
            return self._refuse(row, reject_reason(error), str(error))
        return self._augment(waveform, row, epoch=epoch, stretch=stretch)

    def _augment(self, waveform: Waveform, row: int, *, epoch: int, stretch: float) -> Waveform:
        if self.augmenter is None:
            return waveform
        longest = max(len(waveform), int(len(waveform) * stretch))
        utterance_id = self.table.ids[row].as_py()
        return self.augmenter.augment(
            waveform, seed=self.plan.seed, epoch=epoch, utterance_id=utterance_id, max_num_samples=longest
        )

    def _refuse(self, row: int, reason: RejectReason, detail: str) -> Reject:
        return Reject(id=self.table.ids[row].as_py(), audio=self.table.audio[row].as_py(), reason=reason, detail=detail)


def read_steps(ranges: pa.Table, *, reader: Any, microbatches: Sequence[int]) -> Iterator[pa.Table]:  # noqa: ANN401 - Ray's are untyped
    """Read ranges of batches; Ray Data maps this function over the ranges.

    Args:
        ranges: rows of ``first`` and ``last`` (exclusive), indices into the batches of these microbatches of all steps.
        reader: reference to a BatchReader in the object store.
        microbatches: those to read of each step, in this order.
    """
    import ray  # here, so that the rest can be tested without Ray

    found: BatchReader = ray.get(reader)
    for row in ranges.to_pylist():
        for index in range(row["first"], row["last"]):
            step, number = divmod(index, len(microbatches))
            yield found.read(step, microbatch=microbatches[number])


def in_order(
    rows: Iterable[pa.Table], *, microbatches: Sequence[int], first_step: int, last_step: int
) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield step, microbatch and row, and check that each row comes once and in order.

    Raises:
        RowsLostError: a row came twice, too early, or not at all.
    """
    expected = ((step, microbatch) for step in range(first_step, last_step) for microbatch in microbatches)
    num_expected, num_given = (last_step - first_step) * len(microbatches), 0
    for row in rows:
        found, wanted = (row["step"][0].as_py(), row["microbatch"][0].as_py()), next(expected, None)
        if found != wanted:
            raise RowsLostError(
                "stream", num_expected, num_given, f"(step, microbatch) {found} came instead of {wanted}"
            )
        yield *found, row
        num_given += 1
    if num_given != num_expected:
        raise RowsLostError("stream", num_expected, num_given, f"(step, microbatch) {next(expected)} never came")


def to_batch(row: pa.Table, examples: Sequence[Example], *, epoch: int) -> PcmBatch:
    """Convert one row of ``BATCH_SCHEMA`` to a batch, without copying the samples."""
    pcm = np.frombuffer(row["pcm"][0].as_buffer(), np.int16)
    parts = iter(np.split(pcm, np.cumsum(row["num_samples"][0].as_py())[:-1]))
    return PcmBatch(
        step=row["step"][0].as_py(),
        microbatch=row["microbatch"][0].as_py(),
        epoch=epoch,
        examples=tuple(examples),
        recordings=tuple(tuple(next(parts) for _ in example.utterances) for example in examples),
        rejects=_rejects(row),
    )


def to_recordings(row: pa.Table, utterances: Sequence[Utterance]) -> list[Waveform | Reject]:
    """Convert one row of an exact reader to a recording (S,) or a reject for each utterance, without copying."""
    samples = np.frombuffer(row["pcm"][0].as_buffer(), np.float32)
    parts = np.split(samples, np.cumsum(row["num_samples"][0].as_py())[:-1])
    rejects = {reject.id: reject for reject in _rejects(row)}
    return [rejects.get(one.id, part) for one, part in zip(utterances, parts, strict=True)]


def _rejects(row: pa.Table) -> tuple[Reject, ...]:
    return tuple(Reject.model_validate_json(text) for text in row["rejects"][0].as_py())


def _one_binary(recordings: Sequence[Samples]) -> pa.Array:
    """Join the samples of recordings in an array of one binary value."""
    samples = np.concatenate([np.ascontiguousarray(one).view(np.uint8) for one in recordings])
    offsets = pa.py_buffer(np.array([0, samples.nbytes], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(samples)])
