"""What a run measured and what it was made of: the rows of its evaluations, its state, and ``record.json``."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import Field, JsonValue

from sottovoce.atomic_write import write_whole
from sottovoce.errors import TooManyRejectsError
from sottovoce.schema import Record, Reject
from sottovoce.text.group_score import GroupScore
from sottovoce.train.config import TrainingConfig
from sottovoce.train.microbatches import Cursor

RECORD_FILE = "record.json"


class EvaluationRow(Record):
    """One evaluation on the validation split."""

    step: int
    """Steps taken before it; 0 is the base model."""
    epoch: float
    training_loss: float | None
    """Mean per token since the row before; none before the first step."""
    validation_loss: float
    """Mean natural-log loss per token, without label smoothing."""
    wer: float
    """Fraction."""
    wer_low: float
    """Lower end of the bootstrap 95 % interval."""
    wer_high: float
    cer: float
    seconds: float
    """Since the run's first start, pauses left out."""
    groups: tuple[GroupScore, ...] = ()
    """Corpora and languages, where there are several."""


class RunState(Record):
    """Where a run stands; beside the weights in each of its checkpoints."""

    step: int = 0
    cursor: Cursor | None = None
    """Where in its data the run goes on; none in checkpoints of older releases."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """What its weights follow from, see ``shaping_settings``; none in checkpoints of older releases."""
    rows: tuple[EvaluationRow, ...] = ()
    rejects: tuple[Reject, ...] = ()
    """Training recordings that could not be decoded so far."""
    seconds: float = 0.0
    audio_s: float = 0.0
    """Speech trained on, all workers together."""
    loss_since_row: tuple[float, float] = (0.0, 0.0)
    """Sum of the training loss since the last row, and the labels it is over."""
    step_s: float = 0.0
    """Of ``seconds``, those in training steps: evaluations and checkpoints left out."""
    data_wait_s: float = 0.0
    """Of ``step_s``, those in which the worker that waited most had no batch to go on with; see ``Meter``."""
    resumed_at: tuple[int, ...] = ()
    """Steps from which the run went on after a worker or the driver had died."""
    skipped_steps: int = 0
    """Steps that changed nothing, because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """Of them, those since the last step that counted; see ``SkippedSteps``."""
    is_finished: bool = False
    """The last step is done, or the run stopped early."""


class DataSummary(Record):
    """What a run learned from."""

    num_train: int
    train_hours: float
    num_validation: int
    validation_hours: float
    languages: tuple[str, ...]
    num_speakers: int
    """Speakers the manifest names in the train split; 0 where it names none."""
    rejects: dict[str, int]
    """Rows the preparation rejected and recordings training could not decode, by reason."""
    tasks_per_worker: int | None = None
    """Decoding tasks that ran at a time for each worker; not known of runs of older releases."""
    prefetch_batches: int | None = None
    """Batches each worker held ready; as above."""


class AlignmentRecord(Record):
    """Which heads word times are read from, and how right the times are."""

    heads: tuple[tuple[int, int], ...]
    """Decoder layer and head; what the generation config names."""
    is_derived: bool
    """Found anew in the trained model; False where the base model's were kept."""
    error_s: float | None = None
    """Median distance of word starts and ends from known ones, where utterances begin and end."""
    error_before_s: float | None = None
    """The same with the base model's heads; none where they do not fit the decoder."""
    num_times: int = 0
    """Known starts and ends."""
    num_windows: int = 0
    """Windows of joined utterances they are in."""
    remark: str = ""
    """Why nothing was measured."""


class TrainingRecord(Record):
    """``record.json``: all of a run that is not weights."""

    base: str
    training: TrainingConfig
    device: str
    precision: str
    data: DataSummary
    num_parameters: int = 0
    """Of the base model; tied weights count once."""
    num_trained_parameters: int = 0
    """Those that training changes, an adapter's included."""
    num_steps: int
    """Steps taken."""
    rows: tuple[EvaluationRow, ...]
    best_step: int
    normalizer: str
    """What WER and CER went through."""
    audio_context_s: tuple[float, float]
    seconds: float
    audio_s: float
    step_s: float = 0.0
    """Of ``seconds``, those in training steps: evaluations and checkpoints left out."""
    data_wait_s: float = 0.0
    """Of ``step_s``, those in which the worker that waited most had no batch to go on with; see ``Meter``."""
    resumed_at: tuple[int, ...]
    """Steps from which the run went on after a worker or the driver had died."""
    skipped_steps: int = 0
    """Steps that changed nothing, because loss or gradient was not finite."""
    warnings: tuple[str, ...] = ()
    """What was said at the start about settings that are far from what is known to work."""
    alignment: AlignmentRecord | None = None
    """Of the checkpoint that came out, which word times are read from."""
    versions: dict[str, str]
    is_finished: bool = True
    """False while the run goes on, and where it was interrupted."""

    @property
    def data_wait(self) -> float:
        """Share of the steps' time spent waiting for data."""
        return self.data_wait_s / max(self.step_s, 1e-9)

    @property
    def baseline(self) -> EvaluationRow:
        """The base model's row."""
        return self.rows[0]

    @property
    def best(self) -> EvaluationRow:
        """The row of the checkpoint that came out."""
        return next(row for row in self.rows if row.step == self.best_step)


def add_state(started: TrainingRecord, state: RunState, *, best_step: int) -> TrainingRecord:
    """Give a run's record.

    Args:
        started: what was known before the first step.
        state: what a checkpoint says, the last one at the end.
        best_step: of the checkpoint that comes out.
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


@dataclass(frozen=True)
class Decision:
    """What follows from the evaluations so far."""

    stops: bool
    reason: str


def decide(rows: Sequence[EvaluationRow], *, patience: int | None) -> Decision:
    """Decide whether to go on after an evaluation.

    Args:
        rows: all so far, the base model's first, at least one.
        patience: evaluations in a row without a lower WER that end the run; never when None.
    """
    wers = [row.wer for row in rows]
    best = wers.index(min(wers))
    num_without = len(rows) - 1 - best
    if patience is not None and num_without >= patience:
        reason = f"WER has not fallen below {wers[best]:.4f} for {num_without} evaluations"
        return Decision(stops=True, reason=reason)
    return Decision(stops=False, reason="")


def describe_row(row: EvaluationRow) -> str:
    """Give an evaluation in one line, with rates in percent."""
    training = "" if row.training_loss is None else f"training loss {row.training_loss:.3f}, "
    return (
        f"evaluation at step {row.step} (epoch {row.epoch:.1f}): {training}validation loss {row.validation_loss:.3f}, "
        f"WER {row.wer:.1%}, CER {row.cer:.1%}"
    )


REJECTS_FILE = "training_rejects.jsonl"
"""Not ``rejects.jsonl``, which is the manifest's, whose folder may be the run's."""


def gather_rejects(
    own: Iterable[Reject], accelerator: Accelerator, *, output: Path, num_utterances: int, allowed: float
) -> dict[str, Reject]:
    """Bring all ranks' rejects together, and have the first rank write them; every rank must call it.

    Args:
        own: this rank's, and any that all ranks know of.
        accelerator: knows the ranks.
        output: the run's folder.
        num_utterances: of the training split.
        allowed: the largest part of them that may be left out.

    Returns:
        Those of all ranks, by id.

    Raises:
        TooManyRejectsError: more than allowed; they are in the file by then.
    """
    everywhere: list[Reject] = gather_object(list(own))
    rejects = {reject.id: reject for reject in everywhere}
    path = output / REJECTS_FILE
    if rejects and accelerator.is_main_process:
        write_whole(path, "".join(f"{reject.model_dump_json()}\n" for reject in rejects.values()))
    if len(rejects) > allowed * num_utterances:
        accelerator.wait_for_everyone()  # the first rank to raise ends the run, whoever is still writing
        raise TooManyRejectsError(path, len(rejects), num_utterances, allowed)
    return rejects
