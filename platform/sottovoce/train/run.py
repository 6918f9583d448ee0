"""Build a run of Ray Train from checked settings, and carry it out from the driver."""

import logging
import os
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import yaml
from pydantic import ValidationError
from ray.train.torch import TorchTrainer

from sottovoce.checkpoints.saver import build_store, resolve_root
from sottovoce.cluster import explained_wait
from sottovoce.config import Config, write_config
from sottovoce.errors import ConfigError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import read_model_config
from sottovoce.model.source import resolve_folder
from sottovoce.schema import Reject, Utterance
from sottovoce.text.group_score import name_normalizer
from sottovoce.train import resources
from sottovoce.train.config import TrainingConfig, describe_changes, settle_rate
from sottovoce.train.health.failure import EndAtOwnErrors, raised_by_driver
from sottovoce.train.health.heartbeat import watched
from sottovoce.train.health.progress import has_started, shown_progress
from sottovoce.train.methods import check_method, find_rate_warnings
from sottovoce.train.metrics.trackers import check_trackers, tracker_environment
from sottovoce.train.record import DataSummary, TrainingRecord, read_last_state, write_started
from sottovoce.train.task import TrainingStream, WorkerTask, model_utterances, train_worker
from sottovoce.train.worker_model import ParameterCount, count_parameters

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
    """With everything settled that depends on model and cluster."""
    trainer: TorchTrainer
    parameters: ParameterCount
    warnings: tuple[str, ...] = ()
    """About settings that are far from what is known to work."""


def claim_output(
    job: Config, output: Path, *, file: str = CONFIG_FILE, may_change: Collection[str] = frozenset()
) -> None:
    """Write a job's settings into its output folder, where the same command finds its run again.

    A setting that the file of an older release does not have counts as its default.

    Args:
        job: its settings.
        output: its folder.
        file: name of the settings there.
        may_change: settings that may differ, as in ``training.max_failures``.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    path = output / file
    draft = output / f".{file}.{os.getpid()}"
    write_config(job, draft)
    if path.is_file():
        before = _complete(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, type(job))
        changes = describe_changes(before, job.model_dump(mode="json"), leaving_out=may_change)
        if changes:
            draft.unlink()
            raise ConfigError(
                f"{output} holds a run with other settings ({path}): {'; '.join(changes)}. Set them back to go on with "
                "it, name another --output, or delete that folder"
            )
    draft.replace(path)


def _complete(settings: Mapping[str, Any], job: type[Config]) -> Mapping[str, Any]:
    """Add the defaults of settings that are missing; leave settings alone that this release does not accept."""
    try:
        return job.model_validate(settings).model_dump(mode="json")
    except ValidationError as error:
        logger.debug("settings of another release: %s", error)
        return settings


def build_run(
    config: TrainingConfig, *, train: TrainingStream, validation: Sequence[Utterance], output: Path
) -> TrainingRun:
    """Check the settings against machine, model and data, and describe the run to Ray Train.

    The run's state is kept below ``output``: built again with the same settings, it resumes from its last checkpoint.

    Args:
        config: how to train. Where device or number of workers are left open, the cluster is joined to choose them.
        train: the training split.
        validation: scored at each evaluation.
        output: folder that every worker can write to.

    Raises:
        TrackerUnavailableError: see ``check_trackers``.
        PrecisionUnavailableError: see ``resolve_precision``.
        ConfigError: the machine lacks what the method needs, there are no validation utterances, utterances are longer
            than the model's context, checkpoints cannot be kept where they should, or the cluster has no room for the
            workers.
        CheckpointError: no such base model, or all of the run's checkpoints are damaged.
        StorageError: the storage of the checkpoints does not answer.
    """
    check_trackers(config.trackers)
    device = resources.resolve_device(config.device)
    precision = resources.resolve_precision(config.precision, device)
    output = output.resolve()
    base = Path(config.base)
    checkpoints = resolve_root(config.checkpoints)
    store = build_store(checkpoints, output=output)  # finds an unknown protocol before the model is loaded
    settled = {"checkpoints": checkpoints} | ({"base": str(base.resolve())} if base.is_dir() else {})
    if config.num_workers is None:
        last = read_last_state(store)
        config = resources.settle_workers(
            config, device, num_microbatches=last.cursor.num_microbatches if last.cursor else None
        )
    config = config.model_copy(update=settled)
    if config.device == "auto":
        resources.check_room(config, device, cpus_per_task=train.cpus_per_task)
    check_method(config.method, base=config.base, has_gpu=device == "cuda")
    check_durations(config, train, validation)
    parameters = count_parameters(config, model_utterances(config, train))
    config = settle_rate(config, parameters.base)
    task = WorkerTask(
        training=config.model_dump(mode="json"),
        device=device,
        precision=precision,
        stream=train,
        validation=validation,
        output=output,
        board=f"progress-{uuid.uuid4().hex}",
    )
    warnings = find_rate_warnings(config.peak_lr, method=config.method, num_weights=parameters.base)
    for warning in warnings:
        logger.warning("%s", warning)
    return TrainingRun(task, config, build_trainer(task, config), parameters, warnings)


def build_trainer(task: WorkerTask, config: TrainingConfig) -> TorchTrainer:
    """Build the trainer of a checked run."""
    resources.set_up_environment()
    return TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        torch_config=resources.build_torch(config),
        scaling_config=resources.build_scaling(config, use_gpu=task.device == "cuda"),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees version 1, which Ray has left
            # a new name at each start: Ray finds nothing of its own to restore, only our store says where a run stands
            name=f"{task.output.name}-{task.board.rpartition('-')[2][:8]}",
            storage_path=str(task.output / _STORAGE_FOLDER),
            worker_runtime_env={"env_vars": worker_environment(task.device) | tracker_environment()},
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            failure_config=resources.build_failures(config),
            callbacks=[EndAtOwnErrors()],  # type: ignore[list-item]  # as above
        ),
    )


def worker_environment(device: str) -> dict[str, str]:
    """Return the variables that a training worker's memory allocator reads when its process starts."""
    return _CPU_ENVIRONMENT if device == "cpu" else {}


def check_durations(config: TrainingConfig, train: TrainingStream, validation: Sequence[Utterance]) -> AudioContext:
    """Check that the data fits the model, and return the audio context the run trains on.

    Raises:
        ConfigError: no validation utterances, or speech longer than the model's context.
        CheckpointError: no such base model.
    """
    if not validation:
        raise ConfigError(
            "the manifest has no utterances in its validation split, so nothing could be measured; prepare it with "
            "a validation_fraction above 0, or set split to validation on some lines"
        )
    context = config.audio_context or AudioContext.of(read_model_config(resolve_folder(config.base)))
    durations_s = np.concatenate([train.durations_s, [one.duration_s for one in validation]])
    too_long = np.flatnonzero(durations_s > context.max_s + _ROUNDING_S).tolist()
    if too_long:
        num_train = len(train.examples)
        first = too_long[0]
        named = train.examples[first] if first < num_train else validation[first - num_train]
        is_packed = any(len(train.examples[index].utterances) > 1 for index in too_long if index < num_train)
        what, remedy = "utterances", f"prepare the manifest with max_duration_s={context.max_s:g}"
        if is_packed:
            what, remedy = "examples", f"set pack_s to at most {context.max_s:g}"
        raise ConfigError(
            f"{len(too_long)} {what}, first {named.id}, exceed the {context.max_s:g} s the model reads; "
            f"{remedy}, or set audio_context_s up to {durations_s.max():g} s"
        )
    return context


def run_training(run: TrainingRun, *, is_shown: bool = True) -> None:
    """Train, or resume training, to the end.

    Args:
        run: what to train.
        is_shown: whether progress appears on stderr.

    Raises:
        SottovoceError: a worker raised it; it is raised as it is, and the run is not retried.
        ray.train.TrainingFailedError: workers died more often than the settings allow, or raised another error.
    """
    write_started(describe_run(run, prepare_rejects=()), run.task.output)
    resources.join_cluster()
    task = run.task
    who, asked = resources.ask_resources(run.config, task.device, cpus_per_task=task.stream.cpus_per_task)
    with (
        shown_progress(task.board, is_shown=is_shown) as board,
        explained_wait(who, asked, has_started=partial(has_started, board)),
        watched(board, stuck_after_s=run.config.stuck_after_s) as killed,
        raised_by_driver(killed),
    ):
        run.trainer.fit()


def describe_run(run: TrainingRun, *, prepare_rejects: Sequence[Reject]) -> TrainingRecord:
    """Build the record of a run as it is before its first step."""
    config, task = run.config, run.task
    context = check_durations(config, task.stream, task.validation)
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
    """Count what a run learns from."""
    return DataSummary(
        num_train=len(stream.utterances),
        train_hours=float(stream.durations_s.sum()) / 3600,
        num_validation=len(validation),
        validation_hours=sum(one.duration_s for one in validation) / 3600,
        languages=tuple(sorted({one.language for one in stream.kinds})),
        num_speakers=stream.num_speakers,
        rejects=dict(Counter(reject.reason for reject in rejects)),
        tasks_per_worker=stream.tasks_per_worker,
        prefetch_batches=stream.prefetch_batches,
    )
