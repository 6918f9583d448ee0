"""Stream speech through Ray Data to the training workers: a row is one microbatch of one step.

Audio is decoded and augmented by Ray tasks anywhere on the cluster and travels as int16 PCM through the object store;
the consumer computes log-mel spectrograms. Each worker has one stream of its own microbatches, which starts at the step
from which the run resumes. Ray restarts tasks that die, and step and microbatch determine a batch: no batch is lost or
read twice.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import ray.data
from pydantic import BeforeValidator, Field, model_validator
from ray.data import ExecutionResources, TaskPoolStrategy
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from sottovoce.audio.augmentation.augment import AugmentConfig, Augmenter
from sottovoce.config import Config
from sottovoce.data.batch_plan import BatchPlan, build_plan
from sottovoce.data.batch_reader import BatchReader, build_table, in_order, read_steps, to_batch
from sottovoce.data.mixing import Speech
from sottovoce.data.packing import make_examples
from sottovoce.errors import ConfigError
from sottovoce.schema import MAX_CONTEXT_S, SAMPLING_RATE, Example, PcmBatch, Utterance

_IDLE_STEP_S = 0.01  # an idle step takes 2 ms; one that waits for tasks up to 100
_NUM_IDLE_STEPS = 5  # in a row: steps right after the end of a task are short too, and must not be delayed
_PAUSE_S = 0.05  # short compared to a batch, which takes 0.1 s or more


class IdlePause(ExecutionCallback):
    """Sleeps briefly after several idle scheduling steps in a row.

    When enough is prefetched and no further task may run, Ray 2.60's loop does not wait: its thread takes 93 % of a
    core of each training worker, and 4 % with this callback (measured on two cores). Remove it when
    ``StreamingExecutor.run`` waits by itself.
    """

    def __init__(self) -> None:
        self._num_idle = 0
        self._step_started = time.perf_counter()

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Sleep if the last steps were idle; Ray calls this after each step of its loop."""
        is_idle = time.perf_counter() - self._step_started < _IDLE_STEP_S
        self._num_idle = self._num_idle + 1 if is_idle else 0
        if self._num_idle >= _NUM_IDLE_STEPS:
            time.sleep(_PAUSE_S)
        self._step_started = time.perf_counter()


logger = logging.getLogger(__name__)

_TASKS_IN_STORE = 3  # for each running task and the one being read: its output and twice that waiting
_ROWS_PER_DATASET = 4_096  # Ray Data creates all input before it starts; starting a Dataset takes a second


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
    """The training split and how it is batched; cheap to send, since only ``batches`` reads audio."""

    examples: tuple[Example, ...]
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

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """The utterances of the training split, example after example."""
        return tuple(one for example in self.examples for one in example.utterances)

    @property
    def longest_s(self) -> float:
        """Duration of the longest example [s]; augmentation makes none longer, so that all fit the model's context."""
        return max(example.duration_s for example in self.examples)

    def steps_per_epoch(self, num_microbatches: int) -> int:
        """Return the number of steps in an epoch."""
        return self.plan(num_microbatches=num_microbatches, seed=0).steps_per_epoch

    def fingerprint(self, *, num_microbatches: int, seed: int) -> str:
        """Hash what is read at every step: other utterances or other batches give another value.

        A resumed run compares it with the one in its checkpoint, so its value must stay the same between releases.
        """
        plan = self.plan(num_microbatches=num_microbatches, seed=seed)
        digest = hashlib.sha256(repr((plan.num_microbatches, plan.seed, plan.buckets)).encode())
        for index in plan.order.tolist():
            digest.update("\n".join(one.id for one in self.examples[index].utterances).encode() + b"\n\n")
        return digest.hexdigest()

    def plan(self, *, num_microbatches: int, seed: int) -> BatchPlan:
        """Plan the batches, assuming the longest duration that augmentation may give each example.

        Raises:
            ConfigError: see ``build_plan``.
        """
        durations_s = np.array([example.duration_s for example in self.examples])
        slowest = min(1.0, self.augment.min_speed) if self.augment.speed_probability else 1.0
        return build_plan(
            np.minimum(durations_s / slowest, self.longest_s),
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
        plan = reader.plan
        rows = self._read_rows(ray.put(reader), microbatches=microbatches, first_step=first_step, last_step=last_step)
        for step, microbatch, row in in_order(
            rows, microbatches=microbatches, first_step=first_step, last_step=last_step
        ):
            examples = [self.examples[index] for index in plan.batch(step, microbatch=microbatch).tolist()]
            yield to_batch(row, examples, epoch=plan.epoch_of(step))

    def build_reader(self, *, num_microbatches: int, seed: int) -> BatchReader:
        """Build the reader that all tasks share."""
        return BatchReader(
            build_table(self.examples),
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
        size = self.steps_per_task
        tasks = [{"first": start, "last": min(start + size, last)} for start in range(first, last, size)]
        # from_items, not range: reading a range is a separate operator, whose tasks request a whole CPU.
        dataset = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            partial(read_steps, reader=reader, microbatches=tuple(microbatches)),
            batch_size=None,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(size=self.tasks_per_worker),
            num_cpus=self.cpus_per_task,
        )
        options = dataset.context.execution_options
        options.preserve_order = True
        options.resource_limits = ExecutionResources(object_store_memory=self._store_bytes)
        dataset.context.enable_progress_bars = False
        dataset.context.raise_original_map_exception = True  # otherwise Ray raises its own error, without the cause
        dataset.context.custom_execution_callback_classes.append(IdlePause)
        return dataset

    @property
    def _store_bytes(self) -> float:
        """Memory [bytes] for batches that wait or are being read; by default Ray Data would fill half the store."""
        step_bytes = min(self.batch_s, self.batch_size * self.longest_s) * SAMPLING_RATE * np.dtype(np.int16).itemsize
        return _TASKS_IN_STORE * (1 + self.tasks_per_worker) * self.steps_per_task * step_bytes

    def _read_rows(self, reader: Any, *, microbatches: Sequence[int], first_step: int, last_step: int) -> Iterator[Any]:  # noqa: ANN401
        """Yield tables of one row."""
        stop = last_step * len(microbatches)
        for first in range(first_step * len(microbatches), stop, _ROWS_PER_DATASET):
            dataset = self.build_dataset(
                reader, microbatches=microbatches, first=first, last=min(first + _ROWS_PER_DATASET, stop)
            )
            yield from dataset.iter_batches(
                batch_size=1, batch_format="pyarrow", prefetch_batches=self.prefetch_batches
            )


def build_stream(speech: Speech, config: DatasetConfig) -> SpeechStream:
    """Build the stream that the workers read the training split from.

    Raises:
        ConfigError: a manifest has no training utterances.
    """
    manifests = [make_examples(utterances, pack_s=config.pack_s) for utterances in speech.manifests]
    for path, made in zip(config.manifest, manifests, strict=True):
        if not made:
            raise ConfigError(f"{path} has no utterances in its train split; run jobs.prepare_manifest")
    examples = tuple(example for made in manifests for example in made)
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


def _log_packing(examples: Sequence[Example], *, pack_s: float) -> None:
    seconds = sum(example.duration_s for example in examples)
    logger.info(
        "packed %d utterances into %d examples; they fill %.0f %% of %g s on average",
        sum(len(example.utterances) for example in examples),
        len(examples),
        100 * seconds / (pack_s * len(examples)),
        pack_s,
    )
