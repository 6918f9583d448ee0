"""One change of the weights, from the batches of all ranks."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sottovoce.model.labels import IGNORED
from sottovoce.train.collate import TrainBatch


class StepOutcome(NamedTuple):
    """What one step gave on this rank; scalars on the device, so that reading them is the caller's choice."""

    total: Tensor
    """Loss summed over this rank's labels, float32."""
    num_labels: Tensor
    """This rank's labels that count, float32."""
    gradient_norm: Tensor
    """Of the gradient of all ranks, before clipping."""


class Stepper:
    """Forward, backward, clip and update.

    The loss of a step is the mean over the labels of all its batches on all ranks, so the same utterances give the
    same gradient however they are divided into batches and ranks.
    """

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, *, max_grad_norm: float
    ) -> None:
        self._accelerator, self._model, self._optimizer = accelerator, model, optimizer
        self._max_grad_norm = max_grad_norm

    def step(self, batches: Sequence[TrainBatch], *, learning_rate: float) -> StepOutcome:
        """Change the weights once.

        Args:
            batches: this rank's, at least one; every rank brings as many.
            learning_rate: of this step.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        accelerator, device = self._accelerator, self._accelerator.device
        num_labels = torch.tensor(float(sum(int((batch.labels != IGNORED).sum()) for batch in batches)), device=device)
        num_everywhere: Any = accelerator.reduce(num_labels.clone())
        scale = accelerator.num_processes / num_everywhere.clamp(min=1.0)  # ranks' gradients are averaged, not summed
        total = torch.zeros((), device=device)
        for place, batch in enumerate(batches):
            torch.manual_seed(batch.random_seed)  # dropout follows from step and slot, not from who computes them
            is_last = place == len(batches) - 1
            with nullcontext() if is_last else accelerator.no_sync(self._model):
                loss = self._model(
                    batch.input_features.to(device, non_blocking=True),
                    batch.decoder_input_ids.to(device, non_blocking=True),
                    batch.labels.to(device, non_blocking=True),
                )
                accelerator.backward(loss.total * scale)
            total += loss.total.detach()
        norm: Any = accelerator.clip_grad_norm_(self._model.parameters(), self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return StepOutcome(total, num_labels, torch.as_tensor(norm))
