"""Build a run of Ray Train, watch it, and bring its result out."""

import logging
import os
import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import ray.train
import yaml
from ray.train.torch import TorchTrainer

from sottovoce.checkpoints.saver import build_store, resolve_root
from sottovoce.config import Config, write_config
from sottovoce.errors import ConfigError
from sottovoce.model.checkpoint import read_model_config, resolve_folder
from sottovoce.model.context import AudioContext
from sottovoce.schema import Example, Reject, Utterance
from sottovoce.text.group_score import name_normalizer
from sottovoce.train.config import TrainingConfig, describe_changes
from sottovoce.train.health.failure import EndAtOwnErrors, raised_by_driver
from sottovoce.train.health.heartbeat import watched
from sottovoce.train.health.progress import shown_progress
from sottovoce.train.methods import ParameterCount, check_method, count_parameters, find_rate_warnings, settle_rate
from sottovoce.train.metrics.trackers import check_trackers, tracker_environment
from sottovoce.train.microbatches import TrainingStream
from sottovoce.train.record import DataSummary, TrainingRecord, write_started
from sottovoce.train.resources import (
    build_failures,
    build_scaling,
    build_torch,
    check_room,
    find_shortage,
    join_cluster,
    resolve_device,
    resolve_precision,
    set_up_environment,
)
from sottovoce.train.worker import WorkerTask, train_worker

logger = logging.getLogger(__name__)

CONFIG_FILE = "train_whisper.yaml"
_STORAGE_FOLDER = "ray"
_ROUNDING_S = 1e-3  # durations in manifests are rounded to 0.1 ms, and a pack has many
_VERSIONS = ("ray", "torch", "transformers", "accelerate", "sottovoce")

# Large tensors come and go at every step. In huge pages they cost a fifth less of a CPU step (torch reads this); kept
# by glibc, instead of handed back to the system each time, up to a tenth less again (two cores, a virtual machine).
_CPU_ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}


@dataclass(frozen=True)
class TrainingRun:
    """A run that is ready to start."""

    task: WorkerTask
    config: TrainingConfig
    trainer: TorchTrainer
    parameters: ParameterCount
    """Of the base model, and those of them or of an adapter that are trained."""
    warnings: tuple[str, ...] = ()
    """About settings that are far from what is known to work."""


def claim_output(
    job: Config, output: Path, *, file: str = CONFIG_FILE, may_change: Collection[str] = frozenset()
) -> None:
    """Write a job's settings into its output folder, where the same command finds its run again.

    Args:
        job: its settings.
        output: its folder.
        file: what they are called there.
        may_change: settings, as in ``training.max_failures``, with other values of which the run may go on.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    path = output / file
    draft = output / f".{file}.{os.getpid()}"
    write_config(job, draft)
    if path.is_file():
        before, now = (yaml.safe_load(one.read_text(encoding="utf-8")) or {} for one in (path, draft))
        changes = describe_changes(before, now, leaving_out=may_change)
        if changes:
            draft.unlink()
            raise ConfigError(
                f"{output} holds a run with other settings ({path}): {'; '.join(changes)}. Set them back to go on with "
                "it, name another --output, or delete that folder"
            )
    draft.replace(path)


def build_run(
    config: TrainingConfig, *, train: TrainingStream, validation: Sequence[Utterance], output: Path
) -> TrainingRun:
    """Check the settings against machine, model and data, and describe the run to Ray Train.

    The run's state is kept below ``output``: built again with the same settings, it resumes from its last checkpoint.

    Args:
        config: how to train; where its device is ``auto``, the cluster is joined to look for a GPU.
        train: the training split.
        validation: scored at each evaluation.
        output: folder every worker can write to.

    Raises:
        TrackerUnavailableError: see ``check_trackers``.
        PrecisionUnavailableError: see ``resolve_precision``.
        FourBitUnavailableError: see ``check_method``.
        ConfigError: no validation utterances, utterances longer than the model's context, checkpoints in a place that
            is none, or more workers than the cluster has room for.
        CheckpointError: no such base model.
    """
    check_trackers(config.trackers)
    device = resolve_device(config.device)
    if config.device == "auto":
        check_room(config, device)
    precision = resolve_precision(config.precision, device)
    output = output.resolve()
    base = Path(config.base)
    if base.is_dir():
        config = config.model_copy(update={"base": str(base.resolve())})
    config = config.model_copy(update={"checkpoints": resolve_root(config.checkpoints)})
    build_store(config.checkpoints, output=output)  # an unknown protocol is found here, not after the model has loaded
    check_method(config, device=device)
    check_durations(config, train.examples, validation)
    parameters = count_parameters(config, train.utterances)
    config = settle_rate(config, parameters.base)
    task = WorkerTask(
        training=config.model_dump(mode="json"),
        device=device,
        precision=precision,
        stream=train,
        validation=tuple(validation),
        output=output,
        board=f"progress-{uuid.uuid4().hex}",
    )
    warnings = find_rate_warnings(config, parameters.base)
    for warning in warnings:
        logger.warning("%s", warning)
    return TrainingRun(task, config, build_trainer(task, config), parameters, warnings)


def build_trainer(task: WorkerTask, config: TrainingConfig) -> TorchTrainer:
    """Give the trainer of a checked run."""
    set_up_environment()
    return TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        torch_config=build_torch(config),
        scaling_config=build_scaling(config, use_gpu=task.device == "cuda"),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees version 1, which Ray has left
            # a new name at each start: Ray finds nothing of its own to restore, our store alone says where a run stands
            name=f"{task.output.name}-{task.board.rpartition('-')[2][:8]}",
            storage_path=str(task.output / _STORAGE_FOLDER),
            worker_runtime_env={"env_vars": worker_environment(task.device) | tracker_environment()},
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            failure_config=build_failures(config),
            callbacks=[EndAtOwnErrors()],  # type: ignore[list-item]  # as above
        ),
    )


def worker_environment(device: str) -> dict[str, str]:
    """Name what a training worker's memory allocator reads when its process starts."""
    return _CPU_ENVIRONMENT if device == "cpu" else {}


def check_durations(config: TrainingConfig, train: Sequence[Example], validation: Sequence[Utterance]) -> AudioContext:
    """Find what would stop the run later, and give the context it trains on.

    Raises:
        ConfigError: no validation utterances, or speech longer than the model's context.
        CheckpointError: no such base model.
    """
    if not validation:
        raise ConfigError(
            "the manifest has no utterances in its validation split, so nothing could be measured; prepare it with "
            "a validation_fraction above 0, or set split to validation on some lines"
        )
    context = AudioContext.of(read_model_config(resolve_folder(config.base)))
    if config.audio_context_s is not None:
        context = AudioContext(*config.audio_context_s)
    examples = (*train, *(Example(utterances=(one,)) for one in validation))
    too_long = [one for one in examples if one.duration_s > context.max_s + _ROUNDING_S]
    if too_long:
        is_packed = any(len(one.utterances) > 1 for one in too_long)
        what, remedy = "utterances", f"prepare the manifest with max_duration_s={context.max_s:g}"
        if is_packed:
            what, remedy = "examples", f"set pack_s to at most {context.max_s:g}"
        raise ConfigError(
            f"{len(too_long)} {what}, first {too_long[0].id}, exceed the {context.max_s:g} s the model reads; "
            f"{remedy}, or set audio_context_s up to {max(one.duration_s for one in too_long):g} s"
        )
    return context


def run_training(run: TrainingRun, *, is_shown: bool = True) -> None:
    """Train, or go on training, until the end.

    Args:
        run: what to train.
        is_shown: progress appears on stderr.

    Raises:
        SottovoceError: the one a worker stopped at; it is raised as it is, and not tried again.
        ray.train.TrainingFailedError: workers died more often than the settings allow, or raised another error.
    """
    write_started(describe_run(run, prepare_rejects=()), run.task.output)
    join_cluster()
    shortage = find_shortage(run.config, run.task.device)
    if shortage:
        logger.warning("%s: the run waits until nodes with more are there", shortage)
    with (
        shown_progress(run.task.board, is_shown=is_shown) as board,
        watched(board, stuck_after_s=run.config.stuck_after_s) as killed,
        raised_by_driver(killed),
    ):
        run.trainer.fit()


def describe_run(run: TrainingRun, *, prepare_rejects: Sequence[Reject]) -> TrainingRecord:
    """Give what is known of a run before its first step."""
    config, task = run.config, run.task
    context = check_durations(config, task.stream.examples, task.validation)
    return TrainingRecord(
        base=config.base,
        training=config,
        device=task.device,
        precision=task.precision,
        data=summarize_data(task.stream, task.validation, prepare_rejects),
        num_parameters=run.parameters.base,
        num_trained_parameters=run.parameters.trained,
        normalizer=name_normalizer(task.validation, config.normalizer),
        audio_context_s=(context.min_s, context.max_s),
        warnings=run.warnings,
        versions={name: version(name) for name in _VERSIONS},
        num_steps=0, rows=(), best_step=0, seconds=0.0, audio_s=0.0, resumed_at=(), is_finished=False,
    )  # fmt: skip


def summarize_data(stream: TrainingStream, validation: Sequence[Utterance], rejects: Sequence[Reject]) -> DataSummary:
    """Count what a run learned from, and say how it was decoded."""
    train = stream.utterances
    return DataSummary(
        num_train=len(train),
        train_hours=sum(one.duration_s for one in train) / 3600,
        num_validation=len(validation),
        validation_hours=sum(one.duration_s for one in validation) / 3600,
        languages=tuple(sorted({one.language for one in train})),
        num_speakers=len({one.speaker for one in train if one.speaker is not None}),
        rejects=dict(Counter(reject.reason for reject in rejects)),
        tasks_per_worker=stream.tasks_per_worker,
        prefetch_batches=stream.prefetch_batches,
    )
