"""Running sums of one worker's losses, its throughput, and its waiting time for data."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

T = TypeVar("T")

_GIB = 2**30


class Meter:
    """Counts what a worker does while it trains. Only ``read`` and ``take_mean_loss`` wait for the device.

    The data wait is the time in which a worker idles because its next batch is not ready: decoded, with spectrograms
    and labels. As a fraction of the time of all steps it says how much faster the run would be if batches were always
    ready. It does not include how much decoding and spectrograms slow the steps down where they share cores with them.
    It includes the wait for the first batch, so that a slow start of the stream shows.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        audio_s: float,
        seconds: float,
        loss_since_row: tuple[float, float] = (0.0, 0.0),
        step_s: float = 0.0,
        data_wait_s: float = 0.0,
    ) -> None:
        """Go on counting from what a resumed run had, with the clock of the steps stopped.

        Args:
            accelerator: knows the ranks.
            audio_s: seconds of speech trained on so far.
            seconds: of the run so far.
            loss_since_row: see the attribute.
            step_s: how many of ``seconds`` were spent in steps.
            data_wait_s: how many of ``step_s`` were spent waiting for data.
        """
        self._accelerator = accelerator
        self._started = time.monotonic() - seconds
        self._own = torch.zeros(2, dtype=torch.float64, device=accelerator.device)  # loss and labels
        self._own_audio_s = 0.0
        self._recent = (0.0, 0.0)  # loss and labels of all ranks since the last read
        self.loss_since_row = loss_since_row
        """Sum of all ranks' losses since the last row, and their number of labels, up to the last ``collect``."""
        self.audio_s = audio_s
        """Seconds of speech trained on by all ranks, up to the last ``collect``."""
        self.data_wait_s = data_wait_s
        """Seconds this rank has waited for batches."""
        self.gradient_norm: torch.Tensor | None = None
        self.own: dict[str, float] = {}
        """Of the metrics read last, those that differ on this rank."""
        self._step_s = step_s
        self._running_since: float | None = None
        self._begin_interval(step_s)

    @property
    def seconds(self) -> float:
        """Seconds since the run's first start, without interruptions."""
        return time.monotonic() - self._started

    @property
    def step_s(self) -> float:
        """Seconds spent in steps: those of the run without evaluations and checkpoints."""
        running_s = 0.0 if self._running_since is None else time.monotonic() - self._running_since
        return self._step_s + running_s

    def start(self) -> None:
        """Start the clock of the steps."""
        self._running_since = time.monotonic()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the clock of the steps while the block lasts."""
        self._step_s, self._running_since = self.step_s, None
        try:
            yield
        finally:
            self.start()

    def take(self, batches: Iterator[T]) -> T:
        """Return the next batch, and count how long it took to come."""
        asked = time.monotonic()
        batch = next(batches)
        self.data_wait_s += time.monotonic() - asked
        return batch

    def add(self, total: torch.Tensor, num_labels: torch.Tensor, *, audio_s: float) -> None:
        """Count one step's summed loss on this rank, its labels, and its seconds of speech."""
        self._own += torch.stack([total, num_labels])
        self._own_audio_s += audio_s
        self._num_steps += 1

    def collect(self) -> None:
        """Add up what all ranks counted since the last call; every rank must call it."""
        sums = torch.cat([self._own, self._own.new_tensor([self._own_audio_s])])
        total, num_labels, audio_s = self._accelerator.reduce(sums).tolist()
        self._own_audio_s = 0.0
        self._own.zero_()
        self._recent = (self._recent[0] + total, self._recent[1] + num_labels)
        self.loss_since_row = (self.loss_since_row[0] + total, self.loss_since_row[1] + num_labels)
        self.audio_s += audio_s

    def read(self) -> dict[str, float]:
        """Compute the metrics of all ranks since the last call; every rank must call it.

        Returns:
            loss: mean over all ranks' labels; NaN if every step was skipped.
            gradient_norm: of the last step, before clipping.
            loss_scale: factor of the loss in fp16; 1 in other precisions.
            steps_per_s, audio_s_per_s: throughput in steps and in seconds of speech.
            data_wait: fraction of the steps' time, of the rank that waited most.
            memory_gib: see ``measure_memory``, of the rank with the most.
        """
        self.collect()
        total, num_labels = self._recent
        step_s = self.step_s
        seconds = max(1e-9, step_s - self._read_step_s)
        self.own = {
            "data_wait": (self.data_wait_s - self._read_wait_s) / seconds,
            "memory_gib": measure_memory(self._accelerator.device),
        }
        own = torch.tensor([list(self.own.values())], device=self._accelerator.device)
        most = self._accelerator.gather(own).amax(dim=0).tolist()
        scaler = self._accelerator.scaler
        values = {
            "loss": total / num_labels if num_labels else math.nan,
            "gradient_norm": 0.0 if self.gradient_norm is None else float(self.gradient_norm),
            "steps_per_s": self._num_steps / seconds,
            "audio_s_per_s": (self.audio_s - self._read_audio_s) / seconds,
            "loss_scale": 1.0 if scaler is None else float(scaler.get_scale()),
            **dict(zip(self.own, most, strict=True)),
        }
        self._begin_interval(step_s)
        return values

    def _begin_interval(self, step_s: float) -> None:
        """Begin what the next ``read`` covers at this time in steps."""
        self._read_step_s, self._read_wait_s, self._read_audio_s = step_s, self.data_wait_s, self.audio_s
        self._num_steps, self._recent = 0, (0.0, 0.0)

    def take_mean_loss(self) -> float:
        """Compute all ranks' mean loss since the last call; every rank must call it."""
        self.collect()
        (total, num_labels), self.loss_since_row = self.loss_since_row, (0.0, 0.0)
        return total / max(1.0, num_labels)

    def longest_data_wait_s(self) -> float:
        """Return the wait [s] of the rank that waited most, for which the others idled; every rank must call it."""
        waits: list[float] = gather_object([self.data_wait_s])
        return max(waits)


def measure_memory(device: torch.device) -> float:
    """Measure a worker's memory [GiB]: the peak of its tensors on a GPU, or the resident memory of its process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GIB
    return float(psutil.Process().memory_info().rss) / _GIB
