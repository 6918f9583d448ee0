"""The state of a run beside the weights of each checkpoint: its evaluations so far and its position in the data."""

from pydantic import AliasChoices, Field, JsonValue

from sottovoce.schema import Record, Reject
from sottovoce.text.group_score import GroupScore, Rates


class Cursor(Record):
    """The next training step, as an epoch and a step in that epoch, and the batches that make up a step."""

    epoch: int
    step_in_epoch: int
    """Steps of this epoch that are already done."""
    steps_per_epoch: int
    num_microbatches: int = Field(validation_alias=AliasChoices("num_microbatches", "num_slots"))
    """Batches of one optimizer step; release 0.1 wrote ``num_slots``."""
    fingerprint: str
    """Identifies the utterances and how they are batched; see ``TrainingStream.fingerprint``."""

    def at(self, step: int) -> "Cursor":
        """Return the cursor of another step of the same run."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return self.model_copy(update={"epoch": epoch, "step_in_epoch": step_in_epoch})


class EvaluationRow(Rates):
    """One evaluation on the validation split."""

    step: int
    """Optimizer steps before this evaluation; 0 is the base model."""
    epoch: float
    training_loss: float | None
    """Mean loss per token since the previous row; None before the first step."""
    validation_loss: float
    """Mean natural-log loss per token, without label smoothing."""
    seconds: float
    """Training time since the run first started, without pauses."""
    groups: tuple[GroupScore, ...] = ()
    """Scores by corpus and by language, if there are several."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Further validation metrics by name; see ``VALIDATION_METRICS`` of train/evaluation.py."""


class RunState(Record):
    """The progress of a run; each of its checkpoints holds one beside the weights."""

    step: int = 0
    cursor: Cursor | None = None
    """The position in the data at which the run resumes; None in checkpoints of older releases."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """The settings that determine its weights, see ``shaping_settings``; empty in checkpoints of older releases."""
    rows: tuple[EvaluationRow, ...] = ()
    rejects: tuple[Reject, ...] = ()
    """Recordings of training and validation that could not be decoded up to this step."""
    seconds: float = 0.0
    audio_s: float = 0.0
    """Seconds of speech trained on, summed over workers."""
    loss_since_row: tuple[float, float] = (0.0, 0.0)
    """Sum of the training loss since the last row, and the number of labels in that sum."""
    step_s: float = 0.0
    """The part of ``seconds`` spent in training steps, without evaluations and checkpoints."""
    data_wait_s: float = 0.0
    """The part of ``step_s`` in which the worker that waited longest had no batch; see ``Meter``."""
    resumed_at: tuple[int, ...] = ()
    """Steps from which the run resumed after a worker or the driver had died."""
    skipped_steps: int = 0
    """Steps that left the weights unchanged because the loss or a gradient was not finite."""
    skipped_in_a_row: int = 0
    """Skipped steps since the last step that was not skipped; see ``SkippedSteps``."""
    is_finished: bool = False
    """Whether the last step is done or the run stopped early."""
