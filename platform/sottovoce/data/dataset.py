"""Stream a manifest through Ray Data to the training workers: one row is one worker's batch.

Audio is decoded by Ray tasks anywhere on the cluster and travels as int16 PCM through the object store; log-mel is
made by the consumer. Each worker has one stream for the whole run, which starts at whatever step the run resumes from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import ray.data
from pydantic import Field
from ray.data import TaskPoolStrategy

from sottovoce.audio.decode import read_audio
from sottovoce.audio.pcm import to_pcm
from sottovoce.config import Config
from sottovoce.data.batch_plan import BatchPlan, build_plan
from sottovoce.data.check import reject_reason
from sottovoce.data.idle_pause import IdlePause
from sottovoce.data.manifest import read_manifest
from sottovoce.errors import AudioError, ConfigError
from sottovoce.schema import Example, Pcm, PcmBatch, Reject, RejectReason, Split, Utterance


class DatasetConfig(Config):
    """How a manifest is read for training."""

    manifest: Path
    """``manifest.jsonl``; its train split trains, its validation split validates."""
    batch_size: int = Field(default=16, ge=1)
    """Utterances of one worker at one step."""
    steps_per_task: int = Field(default=4, ge=1)
    """Batches one Ray task decodes: more tasks start faster, fewer cost less."""
    tasks_per_worker: int = Field(default=1, ge=1)
    """Decoding tasks that run at a time for each worker."""
    cpus_per_task: float = Field(default=0.25, gt=0.0)
    """CPUs each decoding task reserves."""
    prefetch_batches: int = Field(default=2, ge=0)
    """Batches each worker holds ready."""


class BatchRow(TypedDict):
    """A row of the Dataset: what one worker reads at one step."""

    step: int
    pcm: bytes
    """The recordings' int16 samples, one after the other."""
    num_samples: list[int]
    """Samples of each recording; 0 where it could not be decoded."""
    places: list[int]
    """Place of each utterance in the split."""
    rejects: list[str]
    """For each utterance JSON of its Reject, or an empty string."""


@dataclass(frozen=True, kw_only=True)
class SpeechStream:
    """The training split and how it is batched; light to send, nothing is read before ``batches``."""

    utterances: tuple[Utterance, ...]
    batch_size: int
    steps_per_task: int
    tasks_per_worker: int
    cpus_per_task: float
    prefetch_batches: int

    def steps_per_epoch(self, num_ranks: int) -> int:
        """Give the steps every rank takes in an epoch."""
        return -(-len(self.utterances) // (self.batch_size * num_ranks))

    def batches(self, *, rank: int, num_ranks: int, seed: int, first_step: int, last_step: int) -> Iterator[PcmBatch]:
        """Read one rank's batches from ``first_step`` up to, not including, ``last_step``; needs a running Ray."""
        durations_s = [utterance.duration_s for utterance in self.utterances]
        plan = build_plan(durations_s, batch_size=self.batch_size, num_ranks=num_ranks, seed=seed)
        num_steps = last_step - first_step
        if num_steps <= 0:
            return
        # from_items, not range: reading a range is an operator of its own, whose tasks ask for a whole CPU.
        steps = [{"step": step} for step in range(first_step, last_step)]
        dataset = ray.data.from_items(steps, override_num_blocks=-(-num_steps // self.steps_per_task)).map(
            BatchReader(self.utterances, plan, rank=rank).read,
            compute=TaskPoolStrategy(size=self.tasks_per_worker),
            num_cpus=self.cpus_per_task,
        )
        dataset.context.execution_options.preserve_order = True
        dataset.context.enable_progress_bars = False
        dataset.context.custom_execution_callback_classes.append(IdlePause)
        tables: Iterable[Any] = dataset.iter_batches(
            batch_size=1, batch_format="pyarrow", prefetch_batches=self.prefetch_batches
        )
        for table in tables:
            (row,) = table.to_pylist()
            yield self._to_batch(row, epoch=plan.epoch_of(row["step"]))

    def _to_batch(self, row: BatchRow, *, epoch: int) -> PcmBatch:
        pcm: Pcm = np.frombuffer(row["pcm"], np.int16)
        return PcmBatch(
            step=row["step"],
            epoch=epoch,
            examples=tuple(Example(utterances=(self.utterances[place],)) for place in row["places"]),
            recordings=tuple((part,) for part in np.split(pcm, np.cumsum(row["num_samples"])[:-1])),
            rejects=tuple(Reject.model_validate_json(text) for text in row["rejects"] if text),
        )


def build_stream(utterances: Sequence[Utterance], config: DatasetConfig) -> SpeechStream:
    """Describe how the workers read the training split.

    Raises:
        ConfigError: no utterances.
    """
    if not utterances:
        raise ConfigError(f"{config.manifest} has no utterances in its train split; run jobs.prepare_manifest")
    return SpeechStream(
        utterances=tuple(utterances),
        batch_size=config.batch_size,
        steps_per_task=config.steps_per_task,
        tasks_per_worker=config.tasks_per_worker,
        cpus_per_task=config.cpus_per_task,
        prefetch_batches=config.prefetch_batches,
    )


def read_split(manifest: Path, split: Split) -> list[Utterance]:
    """Read one split of a manifest, which may be empty.

    Raises:
        ManifestError: see ``read_manifest``.
    """
    return [utterance for utterance in read_manifest(manifest) if utterance.split == split]


def read_recording(utterance: Utterance) -> tuple[Pcm, Reject | None]:
    """Decode one utterance to (S,) int16, or say why it cannot be used."""
    try:
        waveform = read_audio(Path(utterance.audio), start_s=utterance.start_s, duration_s=utterance.duration_s)
    except FileNotFoundError:
        return _refuse(utterance, "missing_file", f"there is no file {utterance.audio}")
    except AudioError as error:
        return _refuse(utterance, reject_reason(error), str(error))
    return to_pcm(waveform), None


def _refuse(utterance: Utterance, reason: RejectReason, detail: str) -> tuple[Pcm, Reject]:
    reject = Reject(id=utterance.id, audio=utterance.audio, reason=reason, detail=detail)
    return np.zeros(0, np.int16), reject


class BatchReader:
    """What Ray Data maps over the steps of a run: decode one rank's batch."""

    def __init__(self, utterances: Sequence[Utterance], plan: BatchPlan, *, rank: int) -> None:
        self._utterances = utterances
        self._plan = plan
        self._rank = rank

    def read(self, row: dict[str, Any]) -> dict[str, Any]:
        """Decode the batch of ``row["step"]``; a recording that fails becomes a Reject."""
        step = int(row["step"])
        places = [int(place) for place in self._plan.batch(step, rank=self._rank)]
        outcomes = [read_recording(self._utterances[place]) for place in places]
        batch = BatchRow(
            step=step,
            pcm=b"".join(pcm.tobytes() for pcm, _ in outcomes),
            num_samples=[len(pcm) for pcm, _ in outcomes],
            places=places,
            rejects=[reject.model_dump_json() if reject else "" for _, reject in outcomes],
        )
        return dict(batch)
