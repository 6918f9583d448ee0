"""What is known of each trial, kept in its own folder so that a search goes on where it was killed.

Ray Tune's own state is no ground for that: it forgets which trials were given up and why, is up to 10 s old, and a
file cut short by the kill starts the whole search anew (tune_controller.py of Ray 2.60).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError

from sottovoce.atomic_write import atomic_write
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.errors import CheckpointError, SearchError
from sottovoce.schema import Record
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.space import SearchConfig, TrialSettings

TRIAL_FILE = "trial.json"
SEARCH_FILE = "search.json"

TrialState: TypeAlias = Literal[
    "waiting",
    "running",
    "finished",
    "pruned",  # by the search: others of its age were better
    "failed",  # an error; the same command tries it again
]


class Trial(Record):
    """One trial: ``trial.json``."""

    number: int
    """From 0 on."""
    settings: TrialSettings
    state: TrialState = "waiting"
    rows: tuple[EvaluationRow, ...] = ()
    """Its evaluations so far; the first is the base model's."""
    error: str | None = None
    """What ended a failed trial, with its traceback where there is one."""

    @property
    def is_decided(self) -> bool:
        """Nothing is left to do for it."""
        return self.state in ("finished", "pruned")

    @property
    def best(self) -> EvaluationRow | None:
        """Its evaluation with the lowest WER after the first step, of equal ones that with the lower loss."""
        trained = [row for row in self.rows if row.step > 0]
        return min(trained, key=lambda row: (row.wer, row.validation_loss), default=None)

    def with_row(self, row: EvaluationRow) -> "Trial":
        """Add an evaluation; others of the same step or later go, for a resumed trial measures again."""
        rows = self.rows if row in self.rows else (*(one for one in self.rows if one.step < row.step), row)
        return self.model_copy(update={"state": "running", "rows": rows, "error": None})


class SearchRecord(Record):
    """``search.json``: all of a search."""

    search: SearchConfig
    training: TrainingConfig
    """The settings every trial shares; its own stand in ``settings``."""
    num_steps: int
    """Of a trial that is not given up."""
    trials: tuple[Trial, ...]
    best: int
    """Number of the trial with the lowest WER of those that did not fail."""
    seconds: float
    """Of training and evaluation in all trials, added up."""


def build_record(search: SearchConfig, training: TrainingConfig, trials: Sequence[Trial]) -> SearchRecord:
    """Compare trials that have ended.

    Args:
        search: what was tried.
        training: what the trials share.
        trials: all, in order of their numbers.

    Raises:
        SearchError: all failed: how far one came before says little of what it would have come to.
    """
    ranked = rank_trials(trials)
    if ranked[0].state == "failed":
        first = trials[0]
        raise SearchError(0, len(trials), f"all failed, trial {first.number} with {last_line(first.error)}")
    assert ranked[0].best is not None, "a trial that did not fail was evaluated after its first step"
    return SearchRecord(
        search=search,
        training=training,
        num_steps=max(row.step for trial in trials for row in trial.rows),
        trials=tuple(trials),
        best=ranked[0].number,
        seconds=sum(trial.rows[-1].seconds for trial in trials if trial.rows),
    )


def rank_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials, lowest WER first, of equal ones lower validation loss; those that failed come last."""

    def key(trial: Trial) -> tuple[bool, float, float]:
        wer, loss = (math.inf, math.inf) if trial.best is None else (trial.best.wer, trial.best.validation_loss)
        return trial.state == "failed", wer, loss

    return sorted(trials, key=key)


def last_line(error: str | None) -> str:
    """Give the line of an error that says what happened: below a traceback the last one."""
    return next(reversed((error or "").strip().splitlines()), "no message")


def trial_folder(output: Path, number: int) -> Path:
    """Give the folder that holds a trial's run and journal."""
    return output / "trials" / f"{number:03d}"


def write_trial(trial: Trial, output: Path) -> None:
    """Write a trial's journal; a reader finds the old or the new one, never a part."""
    folder = trial_folder(output, trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / TRIAL_FILE, trial.model_dump_json(indent=2) + "\n")


def read_trials(output: Path, settings: tuple[TrialSettings, ...]) -> tuple[Trial, ...]:
    """Read what is known of the trials with these settings; a new one where nothing is.

    Raises:
        CheckpointError: a journal that cannot be read, or one of other settings.
    """
    return tuple(_read_trial(output, Trial(number=number, settings=one)) for number, one in enumerate(settings))


def _read_trial(output: Path, fresh: Trial) -> Trial:
    path = trial_folder(output, fresh.number) / TRIAL_FILE
    if not path.exists():
        return fresh
    try:
        trial = Trial.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise CheckpointError(path.parent, f"{TRIAL_FILE} cannot be read; delete that folder: {error}") from error
    if trial.settings != fresh.settings:
        raise CheckpointError(path.parent, f"it holds a trial with other settings ({trial.settings.describe()})")
    return trial
