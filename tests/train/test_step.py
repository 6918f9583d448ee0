"""One change of the weights."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from sottovoce.errors import TrainingMemoryError
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.labels import IGNORED
from sottovoce.train.batches import TrainBatch
from sottovoce.train.health.heartbeat import HeartbeatSender
from sottovoce.train.objective import WhisperObjective, prepare_whisper
from sottovoce.train.step import SkippedSteps, Stepper


def batch(num_labels: tuple[int, ...], *, seed: int = 0) -> TrainBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((len(num_labels), 6), IGNORED)
    inputs = torch.randint(0, 200, labels.shape, generator=generator)
    for row, number in enumerate(num_labels):
        labels[row, :number] = inputs[row, :number]
    features = torch.randn(len(num_labels), 80, 200, generator=generator)
    return TrainBatch(features, inputs, labels, audio_s=2.0 * len(num_labels))


def joined(first: TrainBatch, second: TrainBatch) -> TrainBatch:
    return TrainBatch(
        torch.cat([first.input_features, second.input_features]),
        torch.cat([first.decoder_input_ids, second.decoder_input_ids]),
        torch.cat([first.labels, second.labels]),
        audio_s=first.audio_s + second.audio_s,
    )


def build_stepper(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, *, max_grad_norm: float
) -> Stepper:
    return Stepper(
        accelerator,
        *accelerator.prepare(model, optimizer),
        max_grad_norm=max_grad_norm,
        skipped=SkippedSteps(accelerator, 10),
        heartbeat=HeartbeatSender(None, rank=0, num_ranks=1, stuck_after_s=None),
    )


def train(folder: Path, *steps: list[TrainBatch]) -> tuple[torch.Tensor, list[float]]:
    """Return the weights after some steps, and the gradients' norms."""
    checkpoint = load_checkpoint(folder)
    prepare_whisper(checkpoint.model, method="full", dropout=0.0, gradient_checkpointing=False)
    model = WhisperObjective(checkpoint.model, label_smoothing=0.0)
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    stepper = build_stepper(accelerator, model, optimizer, max_grad_norm=1e9)
    norms = [float(stepper.step(batches, learning_rate=0.1).gradient_norm) for batches in steps]
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), norms


def test_batches_of_unlike_labels_count_as_one_batch_of_all(tiny_checkpoint: Path) -> None:
    first, second = batch((6, 5), seed=1), batch((1, 0), seed=2)
    divided, divided_norms = train(tiny_checkpoint, [first, second])
    together, norms = train(tiny_checkpoint, [joined(first, second)])
    assert divided_norms == pytest.approx(norms, rel=1e-4)
    torch.testing.assert_close(divided, together, rtol=0.0, atol=1e-6)


def test_a_step_without_labels_changes_nothing(tiny_checkpoint: Path) -> None:
    before, _ = train(tiny_checkpoint)
    after, norms = train(tiny_checkpoint, [batch((0, 0))])
    assert norms == [0.0]
    assert torch.equal(before, after)


def test_a_batch_that_takes_too_much_memory_is_named(tiny_checkpoint: Path) -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, *_: torch.Tensor) -> None:
            torch.empty(2**60)  # more than any machine has

    accelerator, model = Accelerator(cpu=True), Greedy()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    stepper = build_stepper(accelerator, model, optimizer, max_grad_norm=1.0)
    with pytest.raises(TrainingMemoryError, match=r"training at step 0: 2 examples padded to 2 s .*2 x 80 x 200"):
        stepper.step([batch((3, 2))], learning_rate=0.1)
