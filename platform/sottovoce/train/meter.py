"""Running sums of one worker's losses, and its pace."""

import time

import torch
from accelerate import Accelerator


class Meter:
    """What a worker counts while it trains; only ``read`` and ``take_mean_loss`` wait for the device."""

    def __init__(self, accelerator: Accelerator, *, audio_s: float, seconds: float) -> None:
        """Go on counting from what a resumed run had.

        Args:
            accelerator: names the ranks and the batches of a step.
            audio_s: speech trained on so far.
            seconds: of the run so far.
        """
        self._accelerator = accelerator
        self._started = time.monotonic() - seconds
        self._recent = torch.zeros(2, device=accelerator.device)
        self._since_row = torch.zeros(2, device=accelerator.device)
        self.audio_s = audio_s
        """Speech trained on by all ranks: this rank's times their number, since all read like durations."""
        self.gradient_norm: torch.Tensor | None = None
        self.restart()

    @property
    def seconds(self) -> float:
        """Since the run's first start, pauses left out."""
        return time.monotonic() - self._started

    def restart(self) -> None:
        """Measure the pace anew, as after an evaluation."""
        self._pace_started, self._pace_audio_s, self._pace_batches = time.monotonic(), self.audio_s, 0

    def add(self, total: torch.Tensor, num_labels: torch.Tensor, *, audio_s: float) -> None:
        """Count one batch's summed loss, its labels, and its seconds of speech."""
        sums = torch.stack([total, num_labels])
        self._recent += sums
        self._since_row += sums
        self.audio_s += audio_s * self._accelerator.num_processes
        self._pace_batches += 1

    def read(self) -> dict[str, float]:
        """Give this rank's mean loss since the last call, the gradient's norm and the pace."""
        total, num_labels = self._recent.tolist()
        self._recent.zero_()
        seconds = max(1e-9, time.monotonic() - self._pace_started)
        num_steps = self._pace_batches / self._accelerator.gradient_accumulation_steps
        return {
            "loss": total / max(1.0, num_labels),
            "gradient_norm": 0.0 if self.gradient_norm is None else float(self.gradient_norm),
            "steps_per_s": num_steps / seconds,
            "audio_s_per_s": (self.audio_s - self._pace_audio_s) / seconds,
        }

    def take_mean_loss(self) -> float:
        """Give all ranks' mean loss since the last call; every rank must call it."""
        total, num_labels = self._accelerator.reduce(self._since_row.double()).tolist()
        self._since_row.zero_()
        return float(total / max(1.0, num_labels))
