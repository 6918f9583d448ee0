"""Stream speech through Ray Data to the training workers: a row is one microbatch of one step.

Audio is decoded and augmented by Ray tasks anywhere on the cluster and travels as int16 PCM through the object store;
the consumer computes log-mel spectrograms. Each worker has one stream of its own microbatches, which starts at the step
from which the run resumes. Ray restarts tasks that die, and step and microbatch determine a batch: no batch is lost or
read twice.
"""

import hashlib
import logging
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from sottovoce.audio.augmentation.augment import AugmentConfig, Augmenter
from sottovoce.config import Config
from sottovoce.data.batch_plan import BatchPlan, GivenBatches, build_plan
from sottovoce.data.batch_reader import BatchReader, build_table, in_order, to_batch, to_recordings
from sottovoce.data.mixing import Speech
from sottovoce.data.packing import make_examples
from sottovoce.data.step_dataset import TaskOptions, build_step_dataset, read_rows
from sottovoce.data.utterance_table import ExampleTable, UtteranceTable
from sottovoce.errors import ConfigError
from sottovoce.schema import MAX_CONTEXT_S, SAMPLING_RATE, Example, PcmBatch, Reject, Utterance, Waveform

logger = logging.getLogger(__name__)

_VALIDATION_STEPS_PER_TASK = 2  # few, because the first batch waits for its whole task; guess
_IDS_AT_ONCE = 65_536  # hashed at a time


def _as_sequence(value: object) -> object:
    return [value] if isinstance(value, str | Path) else value


class DatasetConfig(Config):
    """How manifests are read for training."""

    manifest: Annotated[tuple[Path, ...], BeforeValidator(_as_sequence), Field(min_length=1)]
    """One ``manifest.jsonl`` or several; their train splits train, their validation splits validate."""
    weights: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    """How often the utterances of each manifest are read in an epoch, on average: 0.25 reads a different quarter in
    each of four epochs, 2 reads all of them twice. Default: each once."""
    batch_size: int = Field(default=16, ge=1)
    """Largest number of examples in a microbatch; a step has num_workers times accumulation_steps microbatches."""
    batch_s: float = Field(default=16 * MAX_CONTEXT_S, gt=0.0)
    """Longest microbatch [s], padding included: the longest example times the number of examples."""
    pack_s: float | None = Field(default=None, gt=0.0, le=MAX_CONTEXT_S)
    """Join utterances of one recording or speaker into examples of up to this many seconds, so that the model keeps its
    ability to transcribe long speech; the model's longest context is a good choice."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training speech; validation speech is not changed."""
    steps_per_task: int = Field(default=16, ge=1)
    """Microbatches that one Ray task decodes. More of them reduce the overhead of tasks; fewer take less memory, which
    matters if a microbatch holds many minutes of audio."""
    tasks_per_worker: int = Field(default=1, ge=1)
    """Decoding tasks that run at a time for each worker."""
    cpus_per_task: float = Field(default=0.25, gt=0.0)
    """CPUs each decoding task reserves."""
    prefetch_batches: int = Field(default=2, ge=0)
    """Microbatches that each worker prefetches."""

    @model_validator(mode="after")
    def _check_weights(self) -> "DatasetConfig":
        if self.weights and len(self.weights) != len(self.manifest):
            raise ValueError(f"{len(self.weights)} weights for {len(self.manifest)} manifests; give one for each")
        return self


@dataclass(frozen=True, kw_only=True)
class SpeechStream:
    """The training split and how it is batched.

    The utterances are columns, which reach a worker through the object store without being copied; only ``batches``
    and ``recordings`` read audio.
    """

    examples: Sequence[Example]
    """``build_stream`` gives an ``ExampleTable``."""
    manifest_sizes: tuple[int, ...]
    """Number of examples of each manifest, in order."""
    weights: tuple[float, ...]
    """Weight of each manifest."""
    batch_size: int
    batch_s: float
    augment: AugmentConfig
    steps_per_task: int
    tasks_per_worker: int
    cpus_per_task: float
    prefetch_batches: int

    @cached_property
    def table(self) -> ExampleTable:
        """The examples as columns."""
        return ExampleTable.of(self.examples)

    @property
    def utterances(self) -> UtteranceTable:
        """The utterances of the training split, example after example."""
        return self.table.utterances

    @property
    def kinds(self) -> UtteranceTable:
        """One utterance of each language and task, with speech and without where there are both."""
        return self.utterances.kinds()

    @property
    def num_speakers(self) -> int:
        """How many speakers the training split names."""
        return self.utterances.count_values("speaker")

    @cached_property
    def durations_s(self) -> NDArray[np.float64]:
        """(E,) seconds of each example."""
        return self.table.durations_s

    @property
    def longest_s(self) -> float:
        """Duration of the longest example [s]; augmentation makes none longer, so that all fit the model's context."""
        return float(self.durations_s.max())

    def steps_per_epoch(self, num_microbatches: int) -> int:
        """Return the number of steps in an epoch."""
        return self.plan(num_microbatches=num_microbatches, seed=0).steps_per_epoch

    def fingerprint(self, *, num_microbatches: int, seed: int) -> str:
        """Hash what is read at every step: other utterances or other batches give another value.

        A resumed run compares it with the one in its checkpoint, so its value must stay the same between releases.
        """
        plan = self.plan(num_microbatches=num_microbatches, seed=seed)
        digest = hashlib.sha256(repr((plan.num_microbatches, plan.seed, plan.buckets)).encode())
        for first in range(0, len(plan.order), _IDS_AT_ONCE):
            digest.update(self._join_ids(plan.order[first : first + _IDS_AT_ONCE]).encode())
        return digest.hexdigest()

    def _join_ids(self, indices: NDArray[np.int64]) -> str:
        """Return the ids of examples, one a line, with an empty line after each example."""
        firsts, sizes = self.table.first[indices], np.diff(self.table.first)[indices]
        ends = np.cumsum(sizes)
        numbers = np.arange(ends[-1]) + np.repeat(firsts - ends + sizes, sizes)
        breaks = np.full(len(numbers), "\n", "<U2")
        breaks[ends - 1] = "\n\n"
        ids = self.utterances.batch.column("id").take(pa.array(self.utterances.rows[numbers]))
        return "".join(map(operator.add, ids.to_pylist(), breaks.tolist()))

    def plan(self, *, num_microbatches: int, seed: int) -> BatchPlan:
        """Plan the batches, assuming the longest duration that augmentation may give each example.

        Raises:
            ConfigError: see ``build_plan``.
        """
        slowest = min(1.0, self.augment.min_speed) if self.augment.speed_probability else 1.0
        return build_plan(
            np.minimum(self.durations_s / slowest, self.longest_s),
            batch_size=self.batch_size,
            batch_s=self.batch_s,
            num_microbatches=num_microbatches,
            seed=seed,
            groups=np.repeat(np.arange(len(self.manifest_sizes)), self.manifest_sizes),
            weights=self.weights,
        )

    def batches(
        self, *, microbatches: Sequence[int], num_microbatches: int, seed: int, first_step: int, last_step: int
    ) -> Iterator[PcmBatch]:
        """Read some microbatches of the steps from ``first_step`` to ``last_step``; needs a running Ray.

        Args:
            microbatches: those to read of each step, in reading order.
            num_microbatches: all microbatches of a step, of all workers.
            seed: of the batches and of augmentation.
            first_step: the first step.
            last_step: the step after the last one.

        Raises:
            RowsLostError: see ``in_order``.
        """
        if last_step <= first_step or not microbatches:
            return
        reader = self.build_reader(num_microbatches=num_microbatches, seed=seed)
        plan, reference = reader.plan, ray.put(reader)

        def build(first: int, last: int) -> ray.data.Dataset:
            return self.build_dataset(reference, microbatches=microbatches, first=first, last=last)

        first, last = first_step * len(microbatches), last_step * len(microbatches)
        rows = read_rows(build, first=first, last=last, prefetch_batches=self.prefetch_batches)
        for step, microbatch, row in in_order(
            rows, microbatches=microbatches, first_step=first_step, last_step=last_step
        ):
            examples = [self.table[index] for index in plan.batch(step, microbatch=microbatch).tolist()]
            yield to_batch(row, examples, epoch=plan.epoch_of(step))

    def recordings(self, batches: Sequence[Sequence[Utterance]]) -> Iterator[list[Waveform | Reject]]:
        """Decode batches of utterances as they are, such as those of an evaluation; needs a running Ray.

        The tasks reserve no CPU: training's have reserved theirs, and rest meanwhile.

        Args:
            batches: of utterances; none is empty.

        Yields:
            For each batch, the recording (S,) of each utterance, or why it could not be read.

        Raises:
            RowsLostError: see ``in_order``.
        """
        if not batches:
            return
        reference = ray.put(build_validation_reader(batches))
        longest_s = max(len(batch) * max(one.duration_s for one in batch) for batch in batches)
        options = TaskOptions(
            steps=_VALIDATION_STEPS_PER_TASK,
            tasks=self.tasks_per_worker,
            cpus=0.0,
            step_bytes=longest_s * SAMPLING_RATE * np.dtype(np.float32).itemsize,
        )

        def build(first: int, last: int) -> ray.data.Dataset:
            return build_step_dataset(reference, microbatches=(0,), first=first, last=last, options=options)

        rows = read_rows(build, first=0, last=len(batches), prefetch_batches=self.prefetch_batches)
        for step, _, row in in_order(rows, microbatches=(0,), first_step=0, last_step=len(batches)):
            yield to_recordings(row, batches[step])

    def build_reader(self, *, num_microbatches: int, seed: int) -> BatchReader:
        """Build the reader that all tasks share."""
        return BatchReader(
            build_table(self.table),
            self.plan(num_microbatches=num_microbatches, seed=seed),
            augmenter=None if self.augment == AugmentConfig() else Augmenter(self.augment),
            max_example_s=self.longest_s,
        )

    def build_dataset(self, reader: Any, *, microbatches: Sequence[int], first: int, last: int) -> ray.data.Dataset:  # noqa: ANN401
        """Build the Dataset of some microbatches, with rows of ``BATCH_SCHEMA``.

        Args:
            reader: reference to a BatchReader in the object store; Ray's references are untyped.
            microbatches: those to read of each step, in reading order.
            first: index of the first row among these microbatches of all steps, starting with those of step 0.
            last: index after the last row.
        """
        step_s = min(self.batch_s, self.batch_size * self.longest_s)
        options = TaskOptions(
            steps=self.steps_per_task,
            tasks=self.tasks_per_worker,
            cpus=self.cpus_per_task,
            step_bytes=step_s * SAMPLING_RATE * np.dtype(np.int16).itemsize,
        )
        return build_step_dataset(reader, microbatches=microbatches, first=first, last=last, options=options)


def build_validation_reader(batches: Sequence[Sequence[Utterance]]) -> BatchReader:
    """Build the reader of batches of utterances, each a step; it does not change the speech."""
    examples = [Example(utterances=(one,)) for batch in batches for one in batch]
    ends = np.cumsum([len(batch) for batch in batches])
    steps = GivenBatches(tuple(np.split(np.arange(len(examples), dtype=np.int64), ends[:-1])))
    return BatchReader(build_table(examples), steps, augmenter=None, max_example_s=MAX_CONTEXT_S, is_exact=True)


def decode_here(batches: Sequence[Sequence[Utterance]]) -> Iterator[list[Waveform | Reject]]:
    """Decode batches of utterances as ``SpeechStream.recordings``, in this process and without Ray."""
    reader = build_validation_reader(batches)
    for step, batch in enumerate(batches):
        yield to_recordings(reader.read(step, microbatch=0), batch)


def build_stream(speech: Speech, config: DatasetConfig) -> SpeechStream:
    """Build the stream that the workers read the training split from.

    Raises:
        ConfigError: a manifest has no training utterances.
    """
    manifests = [make_examples(utterances, pack_s=config.pack_s) for utterances in speech.manifests]
    for path, made in zip(config.manifest, manifests, strict=True):
        if not made:
            raise ConfigError(f"{path} has no utterances in its train split; run jobs.prepare_manifest")
    examples = ExampleTable.join(manifests)
    pa.default_memory_pool().release_unused()
    _warn_of_rows(examples.utterances)
    if config.pack_s is not None:
        _log_packing(examples, pack_s=config.pack_s)
    return SpeechStream(
        examples=examples,
        manifest_sizes=tuple(map(len, manifests)),
        weights=config.weights or (1.0,) * len(manifests),
        batch_size=config.batch_size,
        batch_s=config.batch_s,
        augment=config.augment,
        steps_per_task=config.steps_per_task,
        tasks_per_worker=config.tasks_per_worker,
        cpus_per_task=config.cpus_per_task,
        prefetch_batches=config.prefetch_batches,
    )


def _warn_of_rows(utterances: UtteranceTable) -> None:
    """Warn about recordings in rows of Parquet files, as older releases prepared them."""
    num_rows = pc.sum(pc.match_substring_regex(utterances.column("audio"), r"#row=\d+$")).as_py() or 0
    if num_rows:
        logger.warning(
            "%d of %d training recordings are rows of Parquet files, and a whole row group is read for each; prepare "
            "the corpus again, which stores them so that each is read by itself",
            num_rows,
            len(utterances),
        )


def _log_packing(examples: ExampleTable, *, pack_s: float) -> None:
    logger.info(
        "packed %d utterances into %d examples; they fill %.0f %% of %g s on average",
        len(examples.utterances),
        len(examples),
        100 * float(examples.durations_s.sum()) / (pack_s * len(examples)),
        pack_s,
    )
