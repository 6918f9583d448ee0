"""Run a search: Ray Tune starts trials and prunes those that fall behind; a journal records each trial.

The settings are sampled in advance and every trial has a journal, so the same command resumes a killed search: trials
that had ended keep their results, the others resume from their own checkpoints.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray.tune import Callback, CheckpointConfig, RunConfig, TuneConfig, Tuner, grid_search, with_parameters
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler

from sottovoce.atomic_write import atomic_write
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.checkpoints.saver import checkpoints_below
from sottovoce.errors import SearchError
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import describe_row
from sottovoce.train.resources import join_cluster
from sottovoce.train.run import TrainingRun, build_run
from sottovoce.train.task import TrainingStream
from sottovoce.tune.journal import (
    SEARCH_FILE,
    SearchRecord,
    Trial,
    build_record,
    last_line,
    read_trials,
    trial_folder,
    write_trial,
)
from sottovoce.tune.space import SearchConfig, TrialSettings, apply_settings, complete_ranges, sample_settings
from sottovoce.tune.trial import ENDS, ERROR, EVALUATION, RATE, ROW, TrialRun

logger = logging.getLogger(__name__)

_TUNE_FOLDER = "tune"
_DECODING_CPUS = 1.0  # per trial, reserved for the tasks that decode its audio
_MANY_EVALUATIONS = 10_000  # upper limit of the rungs; trials end earlier
_NUMBER = "number"


@dataclass(frozen=True)
class Search:
    """A search that is ready to start."""

    config: SearchConfig
    training: TrainingConfig
    settings: tuple[TrialSettings, ...]
    runs: dict[int, TrainingRun]
    """The run of each trial, by the index of its settings."""
    output: Path


def build_search(
    config: SearchConfig,
    training: TrainingConfig,
    *,
    train: TrainingStream,
    validation: Sequence[Utterance],
    output: Path,
) -> Search:
    """Sample the settings of all trials, and build and check the run of each.

    Args:
        config: the ranges to search.
        training: the settings that all trials share.
        train: the training split.
        validation: utterances on which trials are compared.
        output: a folder that every worker can write to.

    Raises:
        ConfigError: see ``sample_settings`` and ``build_run``.
        CheckpointError: there is no such base model.
    """
    output = output.resolve()
    config = complete_ranges(config, training)
    settings = sample_settings(config, training)
    shared = training.model_copy(update={"checkpoints": checkpoints_below(training.checkpoints, output.name)})
    runs = {
        number: build_run(
            apply_settings(shared, one), train=train, validation=validation, output=trial_folder(output, number)
        )
        for number, one in enumerate(settings)
    }
    return Search(config, training, settings, runs, output)


def run_search(search: Search) -> SearchRecord:
    """Run all trials that have not ended yet, and write ``search.json``.

    Raises:
        SearchError: all trials failed, or the search was interrupted.
        CheckpointError: a trial's journal cannot be read.
    """
    trials = read_trials(search.output, search.settings)
    open_trials = [trial for trial in trials if not trial.is_decided]
    if open_trials:
        _tune(search, trials)
        trials = read_trials(search.output, search.settings)
    unfinished = [trial for trial in trials if trial.state in ("waiting", "running")]
    if unfinished:
        raise SearchError(len(trials) - len(unfinished), len(trials), "it was interrupted")
    record = build_record(search.config, search.training, trials)
    atomic_write(search.output / SEARCH_FILE, record.model_dump_json(indent=2) + "\n")
    return record


def count_concurrent(
    training: TrainingConfig, *, uses_gpu: bool, num_trials: int, resources: Mapping[str, float]
) -> int:
    """Return how many trials fit into a cluster at a time; at least one.

    Args:
        training: sets the number of workers and the CPUs of each.
        uses_gpu: whether each worker takes a GPU.
        num_trials: upper limit.
        resources: total resources of the cluster, ``{"CPU": 8.0, "GPU": 2.0}``.
    """
    cpus = training.max_workers * training.cpus_per_worker + _DECODING_CPUS
    room = [resources.get("CPU", 0.0) / cpus]
    if uses_gpu:
        room.append(resources.get("GPU", 0.0) / training.max_workers)
    return max(1, min(num_trials, int(min(room))))


def build_scheduler(config: SearchConfig, decided: Sequence[Trial]) -> AsyncHyperBandScheduler:
    """Build the scheduler that prunes trials, and replay the results of trials that had ended before.

    Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (asynchronous successive halving).
    """
    scheduler = AsyncHyperBandScheduler(
        time_attr=EVALUATION,
        metric=RATE,
        mode="min",
        grace_period=config.grace_evaluations,
        reduction_factor=config.reduction,
        max_t=max(_MANY_EVALUATIONS, config.grace_evaluations),
    )
    controller: Any = None  # the scheduler does not use it
    for trial in decided:
        stand_in: Any = SimpleNamespace(
            trial_id=f"decided-{trial.number}"
        )  # the scheduler reads nothing else of a trial
        scheduler.on_trial_add(controller, stand_in)
        for index, row in enumerate(trial.rows):
            scheduler.on_trial_result(controller, stand_in, {EVALUATION: index, RATE: row.error_rate})
    return scheduler


class JournalCallback(Callback):
    """Writes the trials' journals, and logs a line for each evaluation and for the end of each trial."""

    def __init__(self, trials: Sequence[Trial], output: Path) -> None:
        self._trials = {trial.number: trial for trial in trials}
        self._output = output

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **_info: object
    ) -> None:
        """Record an evaluation, or the error that occurred instead."""
        number = trial.config[_NUMBER]
        known = self._trials[number]
        if ERROR in result:
            self._record(known.model_copy(update={"state": "failed", "error": result[ERROR]}))
            return
        row = EvaluationRow.model_validate(result[ROW])
        is_new = row not in known.rows
        known = known.with_row(row)
        if is_new:
            logger.info("trial %d (%s): %s", number, known.settings.describe(), describe_row(row))
        if result.get("done"):
            known = known.model_copy(update={"state": "finished" if result[ENDS] else "pruned"})
        self._record(known)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_info: object) -> None:
        """Record that the process of a trial died."""
        error = "its process died" if trial.error_file is None else Path(trial.error_file).read_text(encoding="utf-8")
        known = self._trials[trial.config[_NUMBER]]
        self._record(known.model_copy(update={"state": "failed", "error": error}))

    def _record(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        write_trial(trial, self._output)
        if trial.is_decided or trial.state == "failed":
            logger.info("%s", describe_end(trial, tuple(self._trials.values())))


def describe_end(ended: Trial, trials: Sequence[Trial]) -> str:
    """Describe in one line how a trial ended and how many trials have ended."""
    row = ended.best
    best = "" if row is None else f", best {row.rate_name} {row.error_rate:.1%} at step {row.step}"
    state = ended.state + (f" ({last_line(ended.error)})" if ended.error else "")
    num_ended = sum(trial.is_decided or trial.state == "failed" for trial in trials)
    return f"trial {ended.number} {state}{best}; {num_ended} of {len(trials)} trials have ended"


def _tune(search: Search, trials: Sequence[Trial]) -> None:
    """Run the trials that have not ended with Ray Tune."""
    join_cluster()
    os.environ.setdefault(
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"
    )  # they would write each result in three more formats
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer one prints frames even if verbose is 0
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    decided = [trial for trial in trials if trial.is_decided]
    numbers = [trial.number for trial in trials if not trial.is_decided]
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    uses_gpu = search.runs[numbers[0]].task.device == "cuda"
    room = count_concurrent(
        search.runs[numbers[0]].config, uses_gpu=uses_gpu, num_trials=len(numbers), resources=resources
    )
    concurrent = min(search.config.max_concurrent or room, len(numbers))
    logger.info("searching: %d trials, %d ended before, %d at a time", len(trials), len(decided), concurrent)
    shutil.rmtree(search.output / _TUNE_FOLDER, ignore_errors=True)  # Tune's own state; ours are the journals
    runs = {number: search.runs[number] for number in numbers}
    Tuner(
        with_parameters(TrialRun, runs=runs, keep_checkpoints=search.config.keep_checkpoints),
        param_space={_NUMBER: grid_search(numbers)},
        tune_config=TuneConfig(
            scheduler=build_scheduler(search.config, decided),
            max_concurrent_trials=concurrent,
            trial_dirname_creator=_trial_dirname,
        ),
        run_config=RunConfig(
            name=_TUNE_FOLDER,
            storage_path=str(search.output),
            callbacks=[JournalCallback(trials, search.output)],
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # the runs write their own checkpoints
            verbose=0,
        ),
    ).fit()


def _trial_dirname(trial: TuneTrial) -> str:
    return f"{trial.config[_NUMBER]:03d}"
