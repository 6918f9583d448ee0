"""The journal of each trial, kept in the trial's folder so that a killed search can resume, and the search's record.

Ray Tune's own state does not suffice: it does not keep which trials were pruned and why, it is up to 10 s old, and if
the kill truncates its file, the whole search starts again (tune_controller.py of Ray 2.60). Optuna's journal storage
does not suffice either; see docs/architecture.md.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, ValidationError

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
    "pruned",  # stopped early, because others were better after as many evaluations
    "failed",  # ended by an error; the same command runs it again
]


def _read_state(state: object) -> object:
    """Translate the state of a pruned trial as release 0.1 wrote it."""
    return "pruned" if state == "given_up" else state


class Trial(Record):
    """One trial: ``trial.json``."""

    number: int
    """Counted from 0."""
    settings: TrialSettings
    state: Annotated[TrialState, BeforeValidator(_read_state)] = "waiting"
    rows: tuple[EvaluationRow, ...] = ()
    """Its evaluations so far; the first one is of the base model."""
    error: str | None = None
    """The error that ended a failed trial, with its traceback if there is one."""

    @property
    def is_decided(self) -> bool:
        """Whether the trial has ended and need not run again."""
        return self.state in ("finished", "pruned")

    @property
    def best(self) -> EvaluationRow | None:
        """The evaluation with the lowest error rate after the first step; ties go to the lower validation loss."""
        trained = [row for row in self.rows if row.step > 0]
        return min(trained, key=lambda row: (row.error_rate, row.validation_loss), default=None)

    def with_row(self, row: EvaluationRow) -> "Trial":
        """Add an evaluation; replace those of the same or later steps, which a resumed trial measures again."""
        rows = self.rows if row in self.rows else (*(one for one in self.rows if one.step < row.step), row)
        return self.model_copy(update={"state": "running", "rows": rows, "error": None})


class SearchRecord(Record):
    """The result of a search: ``search.json``."""

    search: SearchConfig
    training: TrainingConfig
    """The settings that all trials share; those of one trial are in its ``settings``."""
    num_steps: int
    """Steps of a trial that is not pruned."""
    trials: tuple[Trial, ...]
    best: int
    """Number of the trial with the lowest error rate among those that did not fail."""
    seconds: float
    """Seconds of training and evaluation, summed over trials."""


def build_record(search: SearchConfig, training: TrainingConfig, trials: Sequence[Trial]) -> SearchRecord:
    """Compare the trials of a search that has ended.

    Args:
        search: the ranges that were searched.
        training: the settings that the trials share.
        trials: all trials, in order of their numbers.

    Raises:
        SearchError: all trials failed; their rates before the failure says little about where they would have ended.
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
    """Sort trials by error rate, lowest first, then by validation loss; failed trials come last."""

    def key(trial: Trial) -> tuple[bool, float, float]:
        best = trial.best
        rate, loss = (math.inf, math.inf) if best is None else (best.error_rate, best.validation_loss)
        return trial.state == "failed", rate, loss

    return sorted(trials, key=key)


def last_line(error: str | None) -> str:
    """Return the line of an error that says what happened: the last line, below any traceback."""
    return next(reversed((error or "").strip().splitlines()), "no message")


def trial_folder(output: Path, number: int) -> Path:
    """Return the folder of a trial's run and journal."""
    return output / "trials" / f"{number:03d}"


def write_trial(trial: Trial, output: Path) -> None:
    """Write a trial's journal atomically."""
    folder = trial_folder(output, trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / TRIAL_FILE, trial.model_dump_json(indent=2) + "\n")


def read_trials(output: Path, settings: tuple[TrialSettings, ...]) -> tuple[Trial, ...]:
    """Read the journals of the trials with these settings; a trial without a journal is a new one.

    Raises:
        CheckpointError: a journal cannot be read, or belongs to other settings.
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
