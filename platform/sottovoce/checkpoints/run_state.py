"""The state of a run beside the weights of each checkpoint: its evaluations so far and its position in the data."""

from pydantic import AliasChoices, Field, JsonValue

from sottovoce.schema import Record, Reject
from sottovoce.text.group_score import GroupScore


class Cursor(Record):
    """The step that comes next, as epoch and place in it, and the batches it counts in."""

    epoch: int
    step_in_epoch: int
    """Steps of this epoch that are done."""
    steps_per_epoch: int
    num_microbatches: int = Field(validation_alias=AliasChoices("num_microbatches", "num_slots"))
    """Batches of one optimizer step; release 0.1 wrote ``num_slots``."""
    fingerprint: str
    """Of the utterances and of how they make batches; see ``TrainingStream.fingerprint``."""

    def at(self, step: int) -> "Cursor":
        """Give the cursor of another step of the same run."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return self.model_copy(update={"epoch": epoch, "step_in_epoch": step_in_epoch})


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
