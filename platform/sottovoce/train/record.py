"""The record of a run, ``record.json``: its settings, data and evaluations, its early stopping and its rejects."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import ValidationError

from sottovoce.atomic_write import atomic_write
from sottovoce.checkpoints.run_state import EvaluationRow, RunState
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import STATE_FILE, read_run_state
from sottovoce.checkpoints.store import CheckpointStore
from sottovoce.errors import ConfigError, TooManyRejectsError
from sottovoce.schema import Record, Reject
from sottovoce.train.config import TrainingConfig
from sottovoce.words.alignment_heads import AlignmentRecord

RECORD_FILE = "record.json"
STARTED_FILE = "started.json"
"""The record as it is before the first step."""
REJECTS_FILE = "training_rejects.jsonl"
"""Not ``rejects.jsonl``, which is that of the manifest, whose folder may be the run's."""


class DataSummary(Record):
    """The data of a run."""

    num_train: int
    train_hours: float
    num_validation: int
    validation_hours: float
    languages: tuple[str, ...]
    num_speakers: int
    """Speakers named in the train split of the manifest; 0 if it names none."""
    rejects: dict[str, int]
    """Number of rows that the preparation rejected and recordings that training could not decode, by reason."""
    tasks_per_worker: int | None = None
    """Decoding tasks that ran at the same time for each worker; unknown for runs of older releases."""
    prefetch_batches: int | None = None
    """Batches each worker held ready; unknown for runs of older releases."""


class TrainingRecord(Record):
    """``record.json``: everything about a run except its weights."""

    base: str
    training: TrainingConfig
    device: str
    precision: str
    data: DataSummary
    num_parameters: int = 0
    """Of the base model; tied weights count once."""
    num_trained_parameters: int = 0
    """Those that training changes, including an adapter's."""
    num_steps: int
    """Steps taken."""
    rows: tuple[EvaluationRow, ...]
    best_step: int
    normalizer: str
    """Applied before WER and CER."""
    audio_context_s: tuple[float, float]
    seconds: float
    audio_s: float
    step_s: float = 0.0
    """How many of ``seconds`` were spent in training steps, without evaluations and checkpoints."""
    data_wait_s: float = 0.0
    """How many of ``step_s`` the worker that waited most spent waiting for a batch; see ``Meter``."""
    resumed_at: tuple[int, ...]
    """Steps from which the run was resumed after a worker or the driver had died."""
    skipped_steps: int = 0
    """Steps that changed no weights because loss or gradient was not finite."""
    warnings: tuple[str, ...] = ()
    """Warnings at the start about settings that are far from what is known to work."""
    alignment: AlignmentRecord | None = None
    """The alignment heads of the best checkpoint, from which word times are computed."""
    versions: dict[str, str]
    is_finished: bool = True
    """False while the run goes on, and if it was interrupted."""

    @property
    def data_wait(self) -> float:
        """Fraction of the steps' time spent waiting for data."""
        return self.data_wait_s / max(self.step_s, 1e-9)

    @property
    def baseline(self) -> EvaluationRow:
        """The base model's row."""
        return self.rows[0]

    @property
    def best(self) -> EvaluationRow:
        """The best checkpoint's row."""
        return next(row for row in self.rows if row.step == self.best_step)


def add_state(started: TrainingRecord, state: RunState, *, best_step: int) -> TrainingRecord:
    """Complete a run's record.

    Args:
        started: the record before the first step.
        state: of the run's last checkpoint.
        best_step: the best checkpoint's.
    """
    rejects = Counter(started.data.rejects) + Counter(reject.reason for reject in state.rejects)
    return started.model_copy(
        update={
            "data": started.data.model_copy(update={"rejects": dict(rejects)}),
            "num_steps": state.step,
            "rows": state.rows,
            "best_step": best_step,
            "seconds": state.seconds,
            "audio_s": state.audio_s,
            "step_s": state.step_s,
            "data_wait_s": state.data_wait_s,
            "resumed_at": state.resumed_at,
            "skipped_steps": state.skipped_steps,
            "is_finished": state.is_finished,
        }
    )


def write_started(record: TrainingRecord, folder: Path) -> None:
    """Write the record of a run at its start."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / STARTED_FILE, record.model_dump_json(indent=2) + "\n")


def read_run(folder: Path) -> TrainingRecord:
    """Read the record of a run, or what there is of it so far.

    Raises:
        ConfigError: the folder holds no run, or one whose record this release cannot read.
        NoGoodCheckpointError: the run is unfinished and all its checkpoints are damaged.
        StorageError: the storage of its checkpoints does not answer.
    """
    for name in (RECORD_FILE, STARTED_FILE):
        path = folder / name
        if path.is_file():
            try:
                record = TrainingRecord.model_validate_json(path.read_text(encoding="utf-8"))
            except ValidationError as error:
                raise ConfigError(f"{path} cannot be read; was it written by another release? {error}") from error
            return record if name == RECORD_FILE else _add_last_state(record, folder)
    raise ConfigError(f"{folder} holds no run: neither {RECORD_FILE} nor {STARTED_FILE}; name a run's output folder")


def read_last_state(store: CheckpointStore) -> RunState:
    """Read the state in a run's last checkpoint; an empty one if there is no checkpoint.

    Raises:
        NoGoodCheckpointError: there are checkpoints, and all are damaged.
        StorageError: storage does not answer.
    """
    with store.latest(under=STATE_FILE) as last:
        return RunState() if last is None else read_run_state(last.folder)


def _add_last_state(started: TrainingRecord, folder: Path) -> TrainingRecord:
    state = read_last_state(build_store(started.training.checkpoints, output=folder.resolve()))
    best_step = min(state.rows, key=lambda row: row.error_rate).step if state.rows else 0
    return add_state(started, state, best_step=best_step)


@dataclass(frozen=True)
class Decision:
    """Whether a run stops early, and why."""

    stops: bool
    reason: str


def decide(rows: Sequence[EvaluationRow], *, patience: int | None) -> Decision:
    """Decide after an evaluation whether to stop early.

    Args:
        rows: all so far, the base model's first, at least one.
        patience: evaluations in a row without a lower headline rate that end the run; None never ends it.
    """
    rates = [row.error_rate for row in rows]
    best = rates.index(min(rates))
    num_without = len(rows) - 1 - best
    if patience is not None and num_without >= patience:
        reason = f"{rows[-1].rate_name} has not fallen below {rates[best]:.4f} for {num_without} evaluations"
        return Decision(stops=True, reason=reason)
    return Decision(stops=False, reason="")


def describe_row(row: EvaluationRow) -> str:
    """Describe an evaluation in one line, with rates in percent."""
    training = "" if row.training_loss is None else f"training loss {row.training_loss:.3f}, "
    return (
        f"evaluation at step {row.step} (epoch {row.epoch:.1f}): {training}validation loss {row.validation_loss:.3f}, "
        f"WER {row.wer:.1%}, CER {row.cer:.1%}{''.join(f', {name} {value:.4g}' for name, value in row.metrics.items())}"
    )


def gather_rejects(
    own: Iterable[Reject], accelerator: Accelerator, *, output: Path, num_utterances: int, allowed: float
) -> dict[str, Reject]:
    """Gather all ranks' rejects; the first rank writes them to a file. Every rank must call it.

    Args:
        own: this rank's, and those that all ranks know already.
        accelerator: knows the ranks.
        output: the run's folder.
        num_utterances: of the training split.
        allowed: largest fraction of them that may be rejected.

    Returns:
        Those of all ranks, by id.

    Raises:
        TooManyRejectsError: more than allowed; the file is written by then.
    """
    everywhere: list[Reject] = gather_object(list(own))
    rejects = {reject.id: reject for reject in everywhere}
    path = output / REJECTS_FILE
    if rejects and accelerator.is_main_process:
        atomic_write(path, "".join(f"{reject.model_dump_json()}\n" for reject in rejects.values()))
    if len(rejects) > allowed * num_utterances:
        accelerator.wait_for_everyone()  # the first rank to raise ends the run, whoever is still writing
        raise TooManyRejectsError(path, len(rejects), num_utterances, allowed)
    return rejects
