"""How long does a checkpoint hold training up?

``python -m benchmarks.checkpoint_stall --output FILE``. One process trains a Whisper of a published shape with random
weights on one batch, in rounds of so many steps, taken in turns:

- ``none``: no checkpoint.
- ``background``: ours. Weights and optimizer state are copied in memory, and written, hashed, synced and read back
  while the steps of the round go on; at the end of the round what is left is waited for, so nothing is left out.
- ``torch.save``: the same weights and state in one file, written and synced before the round's steps.

A stall is what a round takes beyond a round of ``none``: the pause at the save, and the slower steps while a checkpoint
is written. It is given as a share of the steps' time at the default interval between checkpoints, and of the time a
``torch.save`` takes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from accelerate import Accelerator
from pydantic import Field

from benchmarks.clips import Shape, save_random_model
from benchmarks.common import Row, describe_machine, print_table, time_interleaved, write_result
from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.saver import Saver, build_store
from sottovoce.config import Config, load_config
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.train.config import TrainingConfig
from sottovoce.train.objective import WhisperObjective, prepare_whisper

_INTERVAL = int(TrainingConfig.model_fields["evaluate_every_steps"].default)  # steps between checkpoints
_PACKAGES = ("torch", "transformers", "accelerate", "safetensors")


class CheckpointStallBenchmark(Config):
    """What is trained, and how often it is saved."""

    shape: Shape = "tiny"
    """Model to train, with random weights."""
    batch_size: int = Field(default=4, ge=1)
    context_s: float = Field(default=10.0, gt=0.0)
    """Seconds of speech of each utterance."""
    num_tokens: int = Field(default=32, ge=1)
    """Labels of each utterance."""
    num_threads: int = Field(default=1, ge=1)
    """Threads a step computes with, as a worker's by default."""
    num_steps: int = Field(default=4, ge=1)
    """Steps of a round, which begins with a checkpoint: enough for it to be written meanwhile, and no more, for what
    other steps take only hides what is asked."""
    repetitions: int = Field(default=15, ge=1)
    """Timed rounds of each system; the median is reported."""
    folder: Path | None = None
    """Where checkpoints are written, on the disk that is to be measured; a temporary folder when none is given."""
    output: Path
    """JSON file that receives the result."""


@dataclass
class Run:
    """A training process, its three ways to save, and how long each save held it up."""

    checkpoint: Checkpoint
    folder: Path
    config: CheckpointStallBenchmark
    pauses_s: dict[str, list[float]] = field(default_factory=lambda: {"background": [], "torch.save": []})
    step: int = 0

    def __post_init__(self) -> None:
        prepare_whisper(self.checkpoint.model, method="full", dropout=0.0, gradient_checkpointing=False)
        self._accelerator = Accelerator(cpu=True)
        objective = WhisperObjective(self.checkpoint.model, label_smoothing=0.0)
        optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-6, fused=True)
        self._objective, self._optimizer = self._accelerator.prepare(objective, optimizer)
        self.store = build_store(None, output=self.folder)
        self.saver = Saver(self.checkpoint, self._accelerator, self._optimizer, store=self.store, keep_best=1)
        frames = round(100 * self.config.context_s)
        shape = (self.config.batch_size, self.config.num_tokens)
        self._batch = (
            torch.randn(self.config.batch_size, self.checkpoint.num_mel_bins, frames),
            torch.randint(0, 50_000, shape),
            torch.randint(0, 50_000, shape),
        )

    def train(self) -> None:
        """Run the steps of a round."""
        for _ in range(self.config.num_steps):
            self._accelerator.backward(self._objective(*self._batch).total)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.step += 1

    def train_with_background(self) -> None:
        """Save as a run does, train, and wait for what is not written by then."""
        with self._pause("background"):
            self.saver.save(RunState(step=self.step), wer=None)
        self.train()
        self.saver.wait()

    def train_with_torch_save(self) -> None:
        """Save with torch alone, then train."""
        with self._pause("torch.save"), (self.folder / "state.pt").open("wb") as file:
            weights = self.checkpoint.model.state_dict()
            torch.save({"model": weights, "optimizer": self._optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())
        self.train()

    @contextmanager
    def _pause(self, system: str) -> Iterator[None]:
        started = perf_counter()
        yield
        self.pauses_s[system].append(perf_counter() - started)


def compare(run: Run) -> list[Row]:
    """Time rounds of all systems in turns."""
    systems: dict[str, Callable[[], object]] = {
        "none": run.train,
        "background": run.train_with_background,
        "torch.save": run.train_with_torch_save,
    }
    run.train()  # the optimizer has its state from the first step on, and the first copy takes its memory then
    timings = time_interleaved(systems, repetitions=run.config.repetitions)
    step_s = timings["none"].median_s / run.config.num_steps
    pauses_s = {name: median(values[1:]) for name, values in run.pauses_s.items()}  # the first is not timed
    rows: list[Row] = []
    for name, timing in timings.items():
        stall_s = timing.median_s - timings["none"].median_s
        rows.append(
            {
                "system": name,
                "round_s": {"median": timing.median_s, "iqr": timing.iqr_s},
                "step_s": step_s,
                "pause_s": pauses_s.get(name, 0.0),
                "stall_s": stall_s,
                "stall_of_steps": stall_s / (_INTERVAL * step_s),
                "pause_of_torch_save": pauses_s.get(name, 0.0) / pauses_s["torch.save"],
                "stall_of_torch_save": stall_s / pauses_s["torch.save"],
            }
        )
    return rows


def main(config: CheckpointStallBenchmark) -> None:
    """Run the benchmark."""
    torch.set_num_threads(config.num_threads)
    machine = describe_machine(_PACKAGES)
    with TemporaryDirectory(dir=config.folder) as name:
        context = AudioContext(min_s=config.context_s, max_s=config.context_s)
        checkpoint = save_random_model(Path(name) / "base", config.shape, context=context, seed=0)
        run = Run(checkpoint, Path(name), config)
        rows = compare(run)
        run.saver.close()
        newest = run.store.committed()[0]
    setting = {
        "shape": config.shape,
        "batch_size": config.batch_size,
        "context_s": config.context_s,
        "steps_per_round": config.num_steps,
        "steps_between_checkpoints": _INTERVAL,
        "checkpoint_mib": sum(one.size for one in newest.files.values()) / 2**20,
    }
    question = "How long does a checkpoint hold training up: ours, and a synchronous torch.save?"
    write_result(config.output, question, [{**row, "setting": setting} for row in rows], machine=machine)
    print_table(f"checkpoints of {setting['checkpoint_mib']:.0f} MiB, {config.shape}, seconds and shares", rows)


if __name__ == "__main__":
    main(load_config(CheckpointStallBenchmark))
