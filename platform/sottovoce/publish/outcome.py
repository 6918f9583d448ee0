"""Publish the outcome of a run: its best checkpoint, model card, record, alignment heads and report."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import GetTimeoutError, RayError

from sottovoce.atomic_write import atomic_write
from sottovoce.checkpoints.published import published_best, read_last_state
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import MODEL_FOLDER
from sottovoce.errors import SottovoceError
from sottovoce.publish.model_card import write_model_card
from sottovoce.report.diagnosis.diagnose import diagnose, log_findings
from sottovoce.report.run.page import write_report
from sottovoce.schema import Reject, Utterance
from sottovoce.train.metrics.curves import CURVES_FILE, read_curves
from sottovoce.train.record import RECORD_FILE, TrainingRecord, add_state, describe_row
from sottovoce.train.run import TrainingRun, describe_run
from sottovoce.words.alignment_heads import AlignmentRecord, derive_alignment_heads, named_heads

logger = logging.getLogger(__name__)

_MAX_FOR_HEADS = 2_000  # training utterances to choose from; a few hundred are read, a million would fill the memory
_GPU_WAIT_S = 300.0
"""How long the derivation of alignment heads may wait for a GPU and compute. Guess: a free GPU needs seconds."""


def save_result(run: TrainingRun, *, prepare_rejects: Sequence[Reject]) -> TrainingRecord:
    """Write the best checkpoint with its model card, the record and the report into the output folder.

    The checkpoint is published first. Alignment heads are derived afterwards, so a cluster without a free GPU delays
    word times and nothing else.

    Args:
        run: a run that has ended.
        prepare_rejects: rows that never became utterances, for the record.

    Raises:
        CheckpointError: no checkpoint of the run can be trusted, or the last was lost since.
        CheckpointWriteError: the output folder cannot be written to.
    """
    outcome = _publish(run, prepare_rejects)
    utterances = (*run.task.validation, *islice(run.task.stream.utterances, _MAX_FOR_HEADS))
    alignment = derive_after_run(outcome.checkpoint, utterances, device=run.task.device)
    record = outcome.record.model_copy(update={"alignment": alignment})
    curves = read_curves(run.task.output / CURVES_FILE)
    findings = diagnose(record, curves)
    write_model_card(record, outcome.checkpoint, name=run.task.output.name, findings=findings)
    _write_record(record, run.task.output)
    write_report(record, curves, findings, folder=run.task.output)
    log_findings(findings)
    return record


@dataclass(frozen=True)
class _Outcome:
    """A published checkpoint and the record that describes it."""

    record: TrainingRecord
    checkpoint: Path


def _publish(run: TrainingRun, prepare_rejects: Sequence[Reject]) -> _Outcome:
    """Move the best checkpoint into the output folder, complete with its card, and write the record."""
    output = run.task.output
    store, checkpoint = build_store(run.config.checkpoints, output=output), output / MODEL_FOLDER
    state = read_last_state(store)
    started = describe_run(run, prepare_rejects=prepare_rejects)
    with published_best(store, checkpoint) as (best, partial):
        record = add_state(started, state, best_step=best.step)
        findings = diagnose(record, read_curves(output / CURVES_FILE))
        write_model_card(record, partial, name=output.name, findings=findings)
    _write_record(record, output)
    logger.info(
        "trained %d steps in %.0f s, data wait %.1f %%; best %s; base model's %s %.1f %%; checkpoint in %s",
        record.num_steps, record.seconds, 100 * record.data_wait, describe_row(record.best),
        record.baseline.rate_name, 100 * record.baseline.error_rate, checkpoint,
    )  # fmt: skip
    return _Outcome(record, checkpoint)


def _write_record(record: TrainingRecord, output: Path) -> None:
    atomic_write(output / RECORD_FILE, record.model_dump_json(indent=2) + "\n")


def derive_after_run(
    folder: Path, utterances: Sequence[Utterance], *, device: Literal["cpu", "cuda"]
) -> AlignmentRecord:
    """Derive the alignment heads of a published checkpoint on the device that the run used.

    A failure keeps the base model's heads, and the record says why: hours of training are never lost to it.

    Args:
        folder: of the checkpoint, complete; on storage that the cluster reaches.
        utterances: with known texts, the validation split's first.
        device: with cuda, a task on one GPU of the cluster; it is abandoned when none is free for five minutes.
    """
    try:
        if device == "cpu":
            return derive_alignment_heads(folder, utterances, device=device)
        return _derive_on_gpu(folder, utterances)
    except GetTimeoutError:
        reason = (
            f"no GPU was free for {_GPU_WAIT_S:g} s; derive them later with python -m jobs.derive_alignment_heads "
            f"--model {folder}"
        )
    except (SottovoceError, RayError, OSError, RuntimeError, MemoryError) as error:  # torch raises the last two
        reason = str(error) if isinstance(error, SottovoceError) else f"{type(error).__name__}: {error}"
    logger.warning("alignment heads stay as the base model has them: %s", reason)
    return AlignmentRecord(heads=named_heads(folder), is_derived=False, reason=reason)


def _derive_on_gpu(folder: Path, utterances: Sequence[Utterance]) -> AlignmentRecord:
    """Run the derivation as a Ray task on one GPU.

    Raises:
        GetTimeoutError: no GPU was free in time, or the task took too long.
    """
    derive: Any = derive_alignment_heads  # ray's types know no keyword arguments
    task = ray.remote(num_gpus=1)(derive).remote(folder, utterances, device="cuda")
    try:
        record: AlignmentRecord = ray.get(task, timeout=_GPU_WAIT_S)
    except GetTimeoutError:
        ray.cancel(task)
        raise
    return record
