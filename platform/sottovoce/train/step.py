"""One optimizer step from the batches of all ranks, and what happens if its gradient is not finite."""

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from sottovoce.errors import NonFiniteTrainingError
from sottovoce.train.batches import TrainBatch
from sottovoce.train.health.failure import describe_batch, memory_explained, name_ids
from sottovoce.train.health.heartbeat import HeartbeatSender

logger = logging.getLogger(__name__)

_CALIBRATED_SCALE = 1.0  # torch's gradient scaler starts at 65 536 and halves; its own docs call less than 1 a fault


def settle_buckets(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, empty: TrainBatch
) -> None:
    """Make DDP divide the gradients into their final buckets. It changes no weights, and every rank must call it.

    DDP divides them anew after its first backward pass, in the order in which they came. Three and more ranks sum a
    bucket in an order that depends on the position in it. So the first step after a resume, in the old buckets, would
    round differently from the same step of a run that was never killed (seen with gloo and 3 ranks).

    Args:
        accelerator: knows the ranks.
        model: as accelerate prepared it.
        optimizer: of its weights.
        empty: a batch without labels that count; its gradient is zero.
    """
    if accelerator.num_processes == 1:
        return
    device = accelerator.device
    loss: Any = model(empty.input_features.to(device), empty.decoder_input_ids.to(device), empty.labels.to(device))
    accelerator.backward(loss.total)
    optimizer.zero_grad()


@dataclass(frozen=True)
class _Pending:
    """Values of a step that are being copied from the device."""

    step: int
    values: Tensor
    """(4,) float32: 1 where the step was skipped, this rank's mean loss, gradient norm, loss scale."""
    arrived: torch.cuda.Event | None
    ids: tuple[str, ...]


class SkippedSteps:
    """Counts the skipped steps of a run. All ranks count the same, since they share gradients and loss scale."""

    def __init__(self, accelerator: Accelerator, max_in_a_row: int, *, total: int = 0, in_a_row: int = 0) -> None:
        """Continue the counts of a resumed run.

        Args:
            accelerator: holds the gradient scaler, and knows the ranks.
            max_in_a_row: most steps in a row that may be skipped; one more ends the run.
            total: steps skipped so far.
            in_a_row: see the attribute.
        """
        self._accelerator, self._max_in_a_row = accelerator, max_in_a_row
        self.total = total
        """Steps skipped in the whole run, without the one queued last until it is settled."""
        self.in_a_row = in_a_row
        """Steps skipped since the last one that was not. In fp16, those with a loss scale of 1 or more do not count:
        an overflow halves the scale and the next step may fit, which is how the scaler finds its scale."""
        self._pending: _Pending | None = None

    def add(self, step: int, skipped: Tensor, *, loss: Tensor, gradient_norm: Tensor, ids: tuple[str, ...]) -> None:
        """Add a step that has been queued on the device, and settle the one before.

        Args:
            step: steps taken before it.
            skipped: scalar, 1 or 0.
            loss: scalar, this rank's mean.
            gradient_norm: scalar.
            ids: this rank's utterances.

        Raises:
            NonFiniteTrainingError: see ``settle``.
        """
        self.settle()
        # the scale this step was computed with: the optimizer, whose step updates it, comes later
        scaler, one = self._accelerator.scaler, torch.ones_like(loss)
        values = torch.stack([skipped, loss, gradient_norm, one if scaler is None else scaler.scale(one)])
        arrived = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending = _Pending(step, values, arrived, ids)

    def settle(self) -> None:
        """Count the step that was queued last, so that the counts are complete; all ranks must call it.

        Raises:
            NonFiniteTrainingError: more steps in a row were skipped than may be.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.arrived is not None:
            pending.arrived.synchronize()
        skipped, loss, gradient_norm, scale = pending.values.tolist()
        if not skipped:
            self.in_a_row = 0
            return
        self.total += 1
        if self._accelerator.scaler is None or scale < _CALIBRATED_SCALE:
            self.in_a_row += 1
        logger.info("step %d is skipped: loss %g, gradient norm %g, scale %g", pending.step, loss, gradient_norm, scale)
        if self.in_a_row > self._max_in_a_row:
            self._end_run(pending, loss=loss, gradient_norm=gradient_norm, scale=scale)

    def _end_run(self, pending: _Pending, *, loss: float, gradient_norm: float, scale: float) -> NoReturn:
        """Raise; name the examples of the ranks whose loss was not finite, or all if only the gradient was not."""
        everywhere: list[tuple[float, tuple[str, ...]]] = gather_object([(loss, pending.ids)])
        faulty = [one for one in everywhere if not math.isfinite(one[0])] or everywhere
        ids = [name for _, names in faulty for name in names]
        raise NonFiniteTrainingError(pending.step, self.in_a_row, faulty[0][0], gradient_norm, scale, name_ids(ids))


class StepOutcome(NamedTuple):
    """The result of one step on this rank: scalars on the device, so that the caller decides when to wait for them."""

    total: Tensor
    """Loss summed over this rank's labels, float32; zero if the step was skipped."""
    num_labels: Tensor
    """Number of this rank's labels that count, float32; zero if the step was skipped."""
    gradient_norm: Tensor
    """Norm of the gradient of all ranks before clipping; not finite if the step was skipped."""


class Stepper:
    """Takes optimizer steps: forward, backward, clip and update.

    The loss of a step is the mean over the labels of all its batches on all ranks, so the same utterances give the
    same gradient however they are divided into batches and ranks.

    A step whose loss or gradient is infinite or NaN on any rank is skipped on all: weights, moments and Adam's step
    count stay as they are. The norm of the gradient of all ranks decides, since all ranks have it; a rank whose loss is
    not finite makes it NaN. The fused optimizer reads the decision from the tensor that torch's gradient scaler uses
    (``found_inf``), so no rank waits for the device.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float,
        skipped: SkippedSteps,
        heartbeat: HeartbeatSender,
    ) -> None:
        """Prepare to take steps.

        Args:
            accelerator: reduces, scales and clips.
            model: returns a ``LossSum``.
            optimizer: a fused one: only those can skip a step by a value on the device.
            max_grad_norm: longer gradients are scaled down to this norm.
            skipped: counts skipped steps.
            heartbeat: notes every batch.
        """
        self._accelerator, self._model, self._optimizer = accelerator, model, optimizer
        self._max_grad_norm = max_grad_norm
        self._skipped, self._heartbeat = skipped, heartbeat
        self._is_skipped: Tensor | None = None
        inner: Any = getattr(optimizer, "optimizer", optimizer)
        assert getattr(inner, "_step_supports_amp_scaling", False), "a fused optimizer is needed"
        inner.register_step_pre_hook(self._set_found_inf)

    def step(self, batches: Sequence[TrainBatch], *, learning_rate: float) -> StepOutcome:
        """Take one optimizer step.

        Args:
            batches: this rank's, at least one; every rank has the same number.
            learning_rate: of this step.

        Raises:
            NonFiniteTrainingError: too many steps in a row were skipped.
            TrainingMemoryError: a batch does not fit.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        accelerator, device = self._accelerator, self._accelerator.device
        # torch.full, not torch.tensor, which would wait for the device and so for the step before
        num_labels = torch.full((), float(sum(len(batch.label_indices) for batch in batches)), device=device)
        num_everywhere: Any = accelerator.reduce(num_labels.clone())
        scale = accelerator.num_processes / num_everywhere.clamp(min=1.0)  # ranks' gradients are averaged, not summed
        total = torch.zeros((), device=device)
        for index, batch in enumerate(batches):
            self._heartbeat.note("computing")
            with memory_explained(f"training at step {batches[0].step}", partial(describe_batch, batch)):
                total += self._compute(batch, scale, is_last=index == len(batches) - 1)
        norm: Any = accelerator.clip_grad_norm_(self._model.parameters(), self._max_grad_norm)
        norm = torch.as_tensor(norm)
        self._is_skipped = (~norm.isfinite()).float()
        ids = tuple(name for batch in batches for name in batch.ids)
        mean = total / num_labels.clamp(min=1.0)
        self._skipped.add(batches[0].step, self._is_skipped, loss=mean, gradient_norm=norm, ids=ids)
        self._optimizer.step()
        self._optimizer.zero_grad()
        counts = self._is_skipped == 0.0
        return StepOutcome(torch.where(counts, total, 0.0), torch.where(counts, num_labels, 0.0), norm)

    def _compute(self, batch: TrainBatch, scale: Tensor, *, is_last: bool) -> Tensor:
        """Add a batch's gradient and return its loss summed over its labels; the last batch reduces over all ranks."""
        accelerator, device = self._accelerator, self._accelerator.device
        torch.manual_seed(
            batch.random_seed
        )  # dropout depends on step and microbatch, not on the rank that computes them
        with nullcontext() if is_last else accelerator.no_sync(self._model):
            loss = self._model(
                batch.input_features.to(device, non_blocking=True),
                batch.decoder_input_ids.to(device, non_blocking=True),
                batch.labels.to(device, non_blocking=True),
                batch.label_indices.to(device, non_blocking=True),
            )
            total: Tensor = loss.total.detach()
            if is_last:
                self._heartbeat.note("adding up gradients")
            # an infinite loss can have a finite gradient; the other ranks see only the gradient
            accelerator.backward(loss.total * torch.where(total.isfinite(), scale, torch.nan))
        return total

    def _set_found_inf(self, optimizer: Any, *_: object) -> None:  # noqa: ANN401 - torch's type lacks the attribute
        """Set, right before the fused optimizer's step, whether it skips it."""
        optimizer.found_inf = self._is_skipped
