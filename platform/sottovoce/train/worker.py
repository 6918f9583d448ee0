"""The loop of each training worker: measure, train, evaluate, save, and resume where the run stood.

A run's position is its step: data, learning rate and augmentation follow from it. So a run that was killed continues
with exactly the batch that would have come next.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import torch

from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.saver import Saver, build_store, found_checkpoint
from sottovoce.checkpoints.state import read_resumed, read_run_state
from sottovoce.errors import TooManyRejectsError
from sottovoce.schema import Reject
from sottovoce.text.scoring_table import headline_metric
from sottovoce.train.batches import Collator, LabelMix, TrainBatch, prefetched
from sottovoce.train.config import TrainingConfig, check_settings, shaping_settings
from sottovoce.train.evaluation import Evaluator
from sottovoce.train.health.failure import describe_examples, memory_explained, raised_by_worker
from sottovoce.train.health.heartbeat import HeartbeatSender
from sottovoce.train.health.progress import ProgressPost, build_heartbeat, find_board
from sottovoce.train.metrics.curves import Curves
from sottovoce.train.metrics.meter import Meter
from sottovoce.train.metrics.pruner import PrunerClient
from sottovoce.train.microbatches import MicrobatchShare, check_cursor, fill_steps, find_cursor
from sottovoce.train.objective import count_steps, is_due, learning_rate_scale
from sottovoce.train.record import REJECTS_FILE, decide, describe_row, gather_rejects
from sottovoce.train.resources import is_node_leaving
from sottovoce.train.step import SkippedSteps, Stepper, settle_buckets
from sottovoce.train.task import WorkerTask, model_utterances
from sottovoce.train.worker_model import WorkerModel, build_worker_model, quieten_libraries, read_base_spelling

logger = logging.getLogger(__name__)

_PREFETCH_BATCHES = 2


def run_worker(task: WorkerTask) -> None:
    """Run one worker to the end of its run."""
    training = TrainingConfig.model_validate(task.training)
    quieten_libraries()
    if task.device == "cpu":
        torch.set_num_threads(training.threads_per_worker)
    heartbeat = build_heartbeat(task.board, stuck_after_s=training.stuck_after_s)
    with raised_by_worker(), heartbeat.sending():
        store = build_store(training.checkpoints, output=task.output)
        with found_checkpoint(store) as folder:
            state = RunState()
            if folder is not None:
                settings = shaping_settings(training, precision=task.precision)
                check_settings(read_run_state(folder).settings, settings, location=store.location)
                state = read_resumed(folder)
            model = build_worker_model(
                training, model_utterances(training, task.stream),
                device=task.device, precision=task.precision, resume_folder=folder,
            )  # fmt: skip
        saver = Saver(model.checkpoint, model.accelerator, model.optimizer, store=store, keep_best=training.keep_best)
        WorkerLoop(task, training, model=model, state=state, saver=saver, heartbeat=heartbeat).run()


class WorkerLoop:
    """One worker's model, optimizer and position in the run."""

    def __init__(
        self,
        task: WorkerTask,
        config: TrainingConfig,
        *,
        model: WorkerModel,
        state: RunState,
        saver: Saver,
        heartbeat: HeartbeatSender,
    ) -> None:
        self._task, self._config, self._model, self._state = task, config, model, state
        self._saver, self._heartbeat = saver, heartbeat
        headline = headline_metric(task.validation)  # rows of older releases know only WER
        self._rows = [row.model_copy(update={"headline": headline}) for row in state.rows]
        self._rejects = {reject.id: reject for reject in state.rejects}
        accelerator = self._accelerator = model.accelerator
        self._share = MicrobatchShare(config.num_microbatches, accelerator.process_index, accelerator.num_processes)
        self._cursor = find_cursor(
            task.stream, num_microbatches=config.num_microbatches, seed=config.seed, step=state.step
        )
        check_cursor(state.cursor, self._cursor)
        self._num_steps = count_steps(
            steps_per_epoch=self._cursor.steps_per_epoch, num_epochs=config.num_epochs, max_steps=config.max_steps
        )
        self._collator = Collator.of(model.checkpoint, accelerator.device, num_threads=config.threads_per_worker)
        self._evaluator = Evaluator(
            model.checkpoint, task.validation,
            collator=self._collator, accelerator=accelerator, batch_size=config.evaluation_batch_size,
            normalizer=config.normalizer, spelling=read_base_spelling(config.base),
        )  # fmt: skip
        self._skipped = SkippedSteps(
            accelerator, config.max_skipped_in_a_row, total=state.skipped_steps, in_a_row=state.skipped_in_a_row
        )
        self._stepper = Stepper(
            accelerator, model.wrapped, model.optimizer,
            max_grad_norm=config.max_grad_norm, skipped=self._skipped, heartbeat=heartbeat,
        )  # fmt: skip
        self._curves = Curves(
            accelerator, output=task.output, trackers=config.trackers, hyperparameters=task.hyperparameters
        )
        self._pruner_client = PrunerClient(task.pruner, accelerator)
        self._post = ProgressPost(find_board(task.board) if accelerator.is_main_process else None)
        self._meter = Meter(
            accelerator, audio_s=state.audio_s, loss_since_row=state.loss_since_row, seconds=state.seconds,
            step_s=state.step_s, data_wait_s=state.data_wait_s,
        )  # fmt: skip

    def run(self) -> None:
        """Train from the run's position to its end."""
        step, is_stopped = self._state.step, self._state.is_finished
        evaluations = tuple(map(describe_row, self._rows))
        self._post.update(num_steps=self._num_steps, step=step, evaluations=evaluations)
        with (
            self._saver,
            self._curves.opened(step if self._rows else None),
            closing(self._collator.spectrograms),
            prefetched(self._batches(step, stopped=is_stopped), depth=_PREFETCH_BATCHES) as stream,
        ):
            if not self._rows:
                is_stopped = self._evaluate_and_save(0)
            else:
                is_stopped = self._pruner_client.stops(self._rows, is_last=is_stopped)
            empty = self._collator.empty_batch()
            batches = fill_steps(stream, self._share, empty)
            settle_buckets(self._accelerator, self._model.wrapped, self._model.optimizer, empty)
            self._meter.start()
            while step < self._num_steps and not is_stopped:
                self._train_step(step, batches)
                step += 1
                is_stopped = self._after_step(step)
        self._post.update(phase="trained", step=step)

    def _batches(self, step: int, *, stopped: bool) -> Iterator[TrainBatch]:
        """Yield this rank's batches from a step on."""
        config = self._config
        label_mix = LabelMix(config.timestamp_probability, config.previous_text_probability)
        stream = self._task.stream.batches(
            microbatches=self._share.microbatches,
            num_microbatches=self._share.num_microbatches,
            seed=config.seed,
            first_step=step,
            last_step=step if stopped else self._num_steps,
        )
        for batch in stream:
            with memory_explained(f"preparing step {batch.step}", partial(describe_examples, batch.examples)):
                made = self._collator.training_batch(
                    batch, spec_augment=config.spec_augment, label_mix=label_mix, seed=config.seed
                )
            yield made

    def _train_step(self, step: int, batches: Iterator[TrainBatch]) -> None:
        """Take one optimizer step."""
        config = self._config
        scale = learning_rate_scale(step, warmup_steps=config.warmup_steps, num_steps=self._num_steps)
        self._heartbeat.note("waiting for data", step=step)
        taken = [self._meter.take(batches) for _ in range(self._share.num_batches)]
        self._rejects.update({reject.id: reject for batch in taken for reject in batch.rejects})
        outcome = self._stepper.step(taken, learning_rate=config.peak_lr * scale)
        self._meter.gradient_norm = outcome.gradient_norm
        self._meter.add(outcome.total, outcome.num_labels, audio_s=sum(batch.audio_s for batch in taken))

    def _after_step(self, step: int) -> bool:
        """Log, evaluate and save what is due; return whether the run stops."""
        config = self._config
        is_logged = is_due(step, every=config.log_every_steps, num_steps=self._num_steps)
        if is_logged:
            self._log(step)
        if is_due(step, every=config.evaluate_every_steps, num_steps=self._num_steps):
            with self._meter.stopped():
                return self._evaluate_and_save(step)
        is_saved = config.save_every_steps is not None and step % config.save_every_steps == 0
        if is_saved or (is_logged and is_node_leaving()):
            with self._meter.stopped():
                self._save(step, wer=None, is_finished=False)
        return False

    def _log(self, step: int) -> None:
        self._skipped.settle()
        values = self._meter.read() | {"skipped_steps": float(self._skipped.total)}
        self._post.update(
            phase="training", step=step, loss=values["loss"],
            skipped_steps=self._skipped.total, skipped_in_a_row=self._skipped.in_a_row,
            steps_per_s=values["steps_per_s"], audio_s_per_s=values["audio_s_per_s"], data_wait=values["data_wait"],
        )  # fmt: skip
        learning_rate = float(self._model.optimizer.param_groups[0]["lr"])
        self._curves.log_training(step, values, learning_rate=learning_rate, own=self._meter.own)

    def _evaluate_and_save(self, step: int) -> bool:
        """Add a row and write a checkpoint; return whether the run stops."""
        self._post.update(phase="evaluating" if step else "measuring the base model")
        self._heartbeat.note("evaluating", step=step)
        training_loss = self._meter.take_mean_loss() if step else None
        evaluation = self._evaluator.evaluate(
            self._model.objective,
            self._task.stream.recordings,
            note=self._heartbeat.note,
            check_rejects=self._note_lost,
        )
        row = evaluation.row(
            step=step,
            epoch=round(step / self._cursor.steps_per_epoch, 4),
            training_loss=training_loss,
            seconds=self._meter.seconds,
        )
        self._rows.append(row)
        self._curves.log_validation(row)
        decision = decide(self._rows, patience=self._config.patience)
        stops = self._pruner_client.stops(self._rows, is_last=decision.stops or step == self._num_steps)
        self._save(step, wer=row.error_rate, is_finished=stops)
        self._post.update(phase="training", evaluations=tuple(map(describe_row, self._rows)))
        if decision.stops and self._accelerator.is_main_process:
            logger.info("stopped early: %s", decision.reason)
        return stops

    def _note_lost(self, lost: Sequence[Reject]) -> None:
        """Name validation recordings that could not be read beside training's. Every rank must call it with the same.

        Raises:
            TooManyRejectsError: more than allowed of the validation split, or of all.
        """
        self._rejects.update({reject.id: reject for reject in lost})
        self._gather_rejects()
        num_validation, allowed = len(self._task.validation), self._config.max_reject_fraction
        if len(lost) > allowed * num_validation:
            self._accelerator.wait_for_everyone()  # the first rank to raise ends the run, whoever is still writing
            raise TooManyRejectsError(self._task.output / REJECTS_FILE, len(lost), num_validation, allowed)

    def _gather_rejects(self) -> None:
        """Gather all ranks' rejects, and check that there are not too many; every rank must call it."""
        self._rejects = gather_rejects(
            self._rejects.values(),
            self._accelerator,
            output=self._task.output,
            num_utterances=len(self._task.stream.utterances) + len(self._task.validation),
            allowed=self._config.max_reject_fraction,
        )

    def _save(self, step: int, *, wer: float | None, is_finished: bool) -> None:
        """Write a checkpoint; every rank must call it."""
        self._skipped.settle()
        self._meter.collect()
        self._gather_rejects()
        self._heartbeat.note("saving", step=step)
        self._state = RunState(
            step=step,
            cursor=self._cursor.at(step),
            settings=shaping_settings(self._config, precision=self._task.precision),
            rows=tuple(self._rows),
            rejects=tuple(self._rejects.values()),
            seconds=self._meter.seconds,
            audio_s=self._meter.audio_s,
            loss_since_row=self._meter.loss_since_row,
            step_s=self._meter.step_s,
            data_wait_s=self._meter.longest_data_wait_s(),
            resumed_at=self._state.resumed_at,
            skipped_steps=self._skipped.total,
            skipped_in_a_row=self._skipped.in_a_row,
            is_finished=is_finished,
        )
        self._saver.save(self._state, wer=wer)
