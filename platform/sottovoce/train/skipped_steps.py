"""Count the steps that change nothing because loss or gradient was not finite, and end a run that has too many.

Whether a step counts is known on the device, after the gradients of all ranks were added up. Reading it there at once
would let a GPU run dry at every step, so it is copied in the background and read when the next step has been queued.
"""

import logging
import math
from dataclasses import dataclass
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from sottovoce.errors import NonFiniteTrainingError
from sottovoce.train.failure import name_ids

logger = logging.getLogger(__name__)

_CALIBRATED_SCALE = 1.0  # torch's gradient scaler starts at 65 536 and halves; its own docs call less than 1 a fault


@dataclass(frozen=True)
class _Pending:
    """What is on its way from the device."""

    step: int
    figures: Tensor
    """(4,) float32: 1 where the step was skipped, this rank's mean loss, gradient norm, loss scale."""
    arrived: torch.cuda.Event | None
    ids: tuple[str, ...]


class SkippedSteps:
    """One run's count; all ranks count alike, since they share gradients and loss scale."""

    def __init__(self, accelerator: Accelerator, max_in_a_row: int, *, total: int = 0, in_a_row: int = 0) -> None:
        """Go on counting from what a resumed run had.

        Args:
            accelerator: holds the gradient scaler, and names the ranks.
            max_in_a_row: steps in a row that may be skipped; one more ends the run.
            total: steps skipped so far.
            in_a_row: see there.
        """
        self._accelerator, self._max_in_a_row = accelerator, max_in_a_row
        self.total = total
        """Steps skipped in the whole run, the one queued last left out until it is settled."""
        self.in_a_row = in_a_row
        """Steps skipped since the last that counted. Those of fp16 with a loss scale of 1 or more are not among them:
        a gradient that overflows halves the scale and the next may fit, which is how the scaler finds its scale."""
        self._pending: _Pending | None = None

    def add(self, step: int, skipped: Tensor, *, loss: Tensor, gradient_norm: Tensor, ids: tuple[str, ...]) -> None:
        """Note a step that has been queued, and read the one before.

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
        figures = torch.stack([skipped, loss, gradient_norm, one if scaler is None else scaler.scale(one)])
        arrived = None
        if figures.is_cuda:
            figures = figures.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending = _Pending(step, figures, arrived, ids)

    def settle(self) -> None:
        """Read the step that was queued last, so that the counts are those of all steps; all ranks must call it.

        Raises:
            NonFiniteTrainingError: more steps in a row were skipped than may be.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.arrived is not None:
            pending.arrived.synchronize()
        skipped, loss, gradient_norm, scale = pending.figures.tolist()
        if not skipped:
            self.in_a_row = 0
            return
        self.total += 1
        if self._accelerator.scaler is None or scale < _CALIBRATED_SCALE:
            self.in_a_row += 1
        logger.info("step %d is skipped: loss %g, gradient norm %g, scale %g", pending.step, loss, gradient_norm, scale)
        if self.in_a_row > self._max_in_a_row:
            self._give_up(pending, loss=loss, gradient_norm=gradient_norm, scale=scale)

    def _give_up(self, pending: _Pending, *, loss: float, gradient_norm: float, scale: float) -> NoReturn:
        """Name the examples of the ranks whose own loss was not finite, or of all where only the gradient was not."""
        everywhere: list[tuple[float, tuple[str, ...]]] = gather_object([(loss, pending.ids)])
        faulty = [one for one in everywhere if not math.isfinite(one[0])] or everywhere
        ids = [name for _, names in faulty for name in names]
        raise NonFiniteTrainingError(pending.step, self.in_a_row, faulty[0][0], gradient_norm, scale, name_ids(ids))
