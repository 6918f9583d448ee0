"""Where a run stands in its data, kept in its checkpoints and checked when it goes on."""

from sottovoce.errors import ConfigError
from sottovoce.schema import Record
from sottovoce.train.slots import TrainingStream


class Cursor(Record):
    """The step that comes next, as epoch and place in it, and the batches it counts in."""

    epoch: int
    step_in_epoch: int
    """Steps of this epoch that are done."""
    steps_per_epoch: int
    num_slots: int
    """Batches of a step."""
    fingerprint: str
    """Of the utterances and of how they make batches; see ``TrainingStream.fingerprint``."""

    def at(self, step: int) -> "Cursor":
        """Give the cursor of another step of the same run."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return self.model_copy(update={"epoch": epoch, "step_in_epoch": step_in_epoch})


def find_cursor(stream: TrainingStream, *, num_slots: int, seed: int, step: int) -> Cursor:
    """Give the cursor at a step, with the data and settings of now."""
    start = Cursor(
        epoch=0,
        step_in_epoch=0,
        steps_per_epoch=stream.steps_per_epoch(num_slots),
        num_slots=num_slots,
        fingerprint=stream.fingerprint(num_slots=num_slots, seed=seed),
    )
    return start.at(step)


def check_cursor(saved: Cursor | None, expected: Cursor) -> None:
    """Make sure that a resumed run reads on where it stopped: nothing twice, nothing left out.

    Args:
        saved: from the checkpoint; None where an older release wrote it, which is not checked.
        expected: the cursor at the checkpoint's step, with the data and settings of now.

    Raises:
        ConfigError: they differ: the utterances or the settings of batches have changed since.
    """
    if saved is None or saved == expected:
        return
    if saved.num_slots != expected.num_slots:
        change = f"a step had {saved.num_slots} batches and now has {expected.num_slots}"
        remedy = "set num_workers and accumulation_steps back (their product, with the most workers, must stay)"
    elif saved.steps_per_epoch != expected.steps_per_epoch:
        change = f"an epoch had {saved.steps_per_epoch} steps and now has {expected.steps_per_epoch}"
        remedy = "set the data's settings and manifests back"
    else:
        change = "the utterances of the steps are not the same"
        remedy = "set the manifests, their weights and the seed back"
    raise ConfigError(
        f"the run stopped in epoch {saved.epoch} after {saved.step_in_epoch} of {saved.steps_per_epoch} steps, but "
        f"{change}, so it cannot go on there; {remedy}, or start anew in another output folder"
    )
