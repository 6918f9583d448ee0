"""One change of the weights, from the batches of all ranks."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sottovoce.train.collate import TrainBatch
from sottovoce.train.failure import describe_batch, memory_explained
from sottovoce.train.heartbeat import Heart
from sottovoce.train.skipped_steps import SkippedSteps


class StepOutcome(NamedTuple):
    """What one step gave on this rank; scalars on the device, so that reading them is the caller's choice."""

    total: Tensor
    """Loss summed over this rank's labels, float32; zero where the step was skipped."""
    num_labels: Tensor
    """This rank's labels that count, float32; zero where the step was skipped."""
    gradient_norm: Tensor
    """Of the gradient of all ranks, before clipping; not finite where the step was skipped."""


class Stepper:
    """Forward, backward, clip and update.

    The loss of a step is the mean over the labels of all its batches on all ranks, so the same utterances give the
    same gradient however they are divided into batches and ranks.

    A step whose loss or gradient is infinite or not a number on any rank is skipped on all: weights, moments and
    Adam's step count stay as they are. What decides is the norm of the gradient of all ranks, which all of them have,
    and into which a rank with such a loss puts NaN. The fused optimizer is told by the tensor that torch's gradient
    scaler tells it by, so nobody waits for the device.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float,
        skipped: SkippedSteps,
        heart: Heart,
    ) -> None:
        """Prepare to step.

        Args:
            accelerator: reduces, scales and clips.
            model: gives a ``LossSum``.
            optimizer: a fused one: only those can be told on the device to leave all as it is.
            max_grad_norm: a longer gradient is scaled down to it.
            skipped: counts steps that change nothing.
            heart: hears of every batch.
        """
        self._accelerator, self._model, self._optimizer = accelerator, model, optimizer
        self._max_grad_norm = max_grad_norm
        self._skipped, self._heart = skipped, heart
        self._is_skipped: Tensor | None = None
        inner: Any = getattr(optimizer, "optimizer", optimizer)
        assert getattr(inner, "_step_supports_amp_scaling", False), "a fused optimizer is needed"
        inner.register_step_pre_hook(self._tell)

    def step(self, batches: Sequence[TrainBatch], *, learning_rate: float) -> StepOutcome:
        """Change the weights once.

        Args:
            batches: this rank's, at least one; every rank brings as many.
            learning_rate: of this step.

        Raises:
            NonFiniteTrainingError: too many steps in a row were skipped.
            TrainingMemoryError: a batch does not fit.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        accelerator, device = self._accelerator, self._accelerator.device
        # torch.full, not torch.tensor, which waits until the device has taken it: nobody waits for the step before
        num_labels = torch.full((), float(sum(len(batch.places) for batch in batches)), device=device)
        num_everywhere: Any = accelerator.reduce(num_labels.clone())
        scale = accelerator.num_processes / num_everywhere.clamp(min=1.0)  # ranks' gradients are averaged, not summed
        total = torch.zeros((), device=device)
        for place, batch in enumerate(batches):
            self._heart.note("computing")
            with memory_explained(f"training at step {batches[0].step}", partial(describe_batch, batch)):
                total += self._compute(batch, scale, is_last=place == len(batches) - 1)
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
        """Add a batch's gradient, that of all ranks after the last, and give its loss summed over its labels."""
        accelerator, device = self._accelerator, self._accelerator.device
        torch.manual_seed(batch.random_seed)  # dropout follows from step and slot, not from who computes them
        with nullcontext() if is_last else accelerator.no_sync(self._model):
            loss = self._model(
                batch.input_features.to(device, non_blocking=True),
                batch.decoder_input_ids.to(device, non_blocking=True),
                batch.labels.to(device, non_blocking=True),
                batch.places.to(device, non_blocking=True),
            )
            total: Tensor = loss.total.detach()
            if is_last:
                self._heart.note("adding up gradients")
            # an infinite loss can have a finite gradient; the other ranks hear of it by the gradient alone
            accelerator.backward(loss.total * torch.where(total.isfinite(), scale, torch.nan))
        return total

    def _tell(self, optimizer: Any, *_: object) -> None:  # noqa: ANN401 - torch's type lacks the attribute
        """Tell the fused optimizer, right before its step, whether to leave all as it is."""
        optimizer.found_inf = self._is_skipped
