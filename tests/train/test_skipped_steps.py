"""Steps without a finite loss and gradient change nothing, are counted, and end a run that has too many in a row."""

import copy
import math
import random

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sottovoce.errors import NonFiniteTrainingError
from sottovoce.train.batches import TrainBatch
from sottovoce.train.health.heartbeat import HeartbeatSender
from sottovoce.train.objective import LossSum
from sottovoce.train.step import SkippedSteps, Stepper

LEARNING_RATE = 0.03
FAULTS = ("nan loss", "inf loss", "nan gradient", "inf gradient", "long gradient")


class Injected(torch.autograd.Function):
    """Leaves a value as it is, and adds a number to its gradient."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor, added: float) -> Tensor:
        ctx.added = added
        return value.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient + ctx.added, None


class Line(nn.Module):
    """Fits a plane; ``fault`` says what goes wrong in the next step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.fault: str | None = None

    def forward(self, input_features: Tensor, decoder_input_ids: Tensor, labels: Tensor, *_: Tensor) -> LossSum:
        found = self.linear(input_features[:, :, 0]).squeeze(1)
        kind, _, where = (self.fault or "").partition(" ")
        number = {"nan": math.nan, "inf": math.inf, "long": 1e25}.get(kind, 0.0)
        if where == "gradient":  # 1e25 is finite, and its square is not
            found = Injected.apply(found, number)
        total = (found - input_features.sum(dim=(1, 2))).square().sum()
        if where == "loss":  # with a gradient that is finite
            total = total + torch.tensor(number)
        return LossSum(total, (labels >= 0).sum().float())


class Rig:
    """A model in training, small enough for thousands of steps."""

    def __init__(
        self, *, max_in_a_row: int = 10, scaler: torch.amp.GradScaler | None = None, total: int = 0, in_a_row: int = 0
    ) -> None:
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True)
        self.accelerator.scaler = scaler
        self.model = Line()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        _, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        self.skipped = SkippedSteps(self.accelerator, max_in_a_row, total=total, in_a_row=in_a_row)
        self.stepper = Stepper(
            self.accelerator,
            self.model,
            self.optimizer,
            max_grad_norm=1.0,
            skipped=self.skipped,
            heartbeat=HeartbeatSender(None, rank=0, num_ranks=1, stuck_after_s=None),
        )
        self.num_steps = 0

    def step(self, fault: str | None = None) -> float:
        """Return the step's mean loss, 0 if it was skipped."""
        self.model.fault = fault
        generator = torch.Generator().manual_seed(self.num_steps % 8)
        features = torch.randn(6, 4, 1, generator=generator)
        labels = torch.ones(6, 1, dtype=torch.int64)
        batch = TrainBatch(features, labels, labels, audio_s=1.0, step=self.num_steps, ids=(f"u{self.num_steps}",))
        self.num_steps += 1
        outcome = self.stepper.step([batch], learning_rate=LEARNING_RATE)
        return float(outcome.total / outcome.num_labels.clamp(min=1.0))

    def snapshot(self) -> list[Tensor]:
        """Weights, moments and step counts."""
        states = [value for state in self.optimizer.state_dict()["state"].values() for value in state.values()]
        return copy.deepcopy([*self.model.state_dict().values(), *states])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_skipped_step_changes_no_weight_no_moment_and_no_step_count(fault: str) -> None:
    rig = Rig()
    rig.step()
    before = rig.snapshot()
    assert rig.step(fault) == 0.0
    after = rig.snapshot()
    assert len(before) == 2 + 2 * 3
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    rig.step()
    assert any(not torch.equal(one, other) for one, other in zip(before, rig.snapshot(), strict=True))


def test_the_very_first_step_may_be_skipped() -> None:
    rig, untouched = Rig(), Rig()
    rig.step("nan loss")
    rig.num_steps = 0
    assert rig.step() == untouched.step()
    assert all(torch.equal(*pair) for pair in zip(rig.snapshot(), untouched.snapshot(), strict=True))


@pytest.mark.slow
def test_a_thousand_faults_leave_no_weight_that_is_not_a_number_and_the_loss_falls_on() -> None:
    rig, chosen = Rig(), random.Random(0)
    losses, num_faults = [rig.step()], 0
    while num_faults < 1_000:
        fault = chosen.choice(FAULTS) if chosen.random() < 0.8 and rig.skipped.in_a_row < 9 else None
        num_faults += fault is not None
        loss = rig.step(fault)
        if fault is None:
            losses.append(loss)
    rig.skipped.settle()
    assert rig.skipped.total == 1_000
    assert all(tensor.isfinite().all() for tensor in rig.snapshot())
    assert losses[-1] < 0.1 * losses[0]
    assert sum(losses[-50:]) < sum(losses[50:100])


def test_steps_without_a_fault_are_those_of_plain_adam() -> None:
    rig = Rig()
    model = copy.deepcopy(rig.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    for number in range(20):
        rig.step()
        features = torch.randn(6, 4, 1, generator=torch.Generator().manual_seed(number % 8))
        (model(features, features, torch.ones(6, 1)).total / 6.0).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(*pair) for pair in zip(model.state_dict().values(), rig.snapshot(), strict=False))


def test_too_many_in_a_row_end_the_run_with_what_to_try() -> None:
    rig = Rig(max_in_a_row=3)
    rig.step()
    for _ in range(4):
        rig.step("nan loss")
    with pytest.raises(NonFiniteTrainingError, match=r"4 steps in a row .* step 4: loss nan.*u4; lower learning_rate"):
        rig.step()  # a step is looked at when the next one has been queued


def test_the_last_step_is_looked_at_before_a_checkpoint_is_written() -> None:
    rig = Rig(max_in_a_row=0)
    rig.step("inf gradient")
    with pytest.raises(NonFiniteTrainingError, match="1 steps in a row"):
        rig.skipped.settle()


def test_a_step_that_is_not_skipped_resets_the_row_but_not_the_total() -> None:
    rig = Rig(max_in_a_row=2)
    for fault in ("nan loss", "nan loss", None, "nan loss", "nan loss", None):
        rig.step(fault)
    rig.skipped.settle()
    assert (rig.skipped.total, rig.skipped.in_a_row) == (4, 0)


def test_a_resumed_run_counts_on() -> None:
    rig = Rig(max_in_a_row=3, total=7, in_a_row=3)
    rig.step("nan loss")
    with pytest.raises(NonFiniteTrainingError, match="4 steps in a row"):
        rig.skipped.settle()
    assert rig.skipped.total == 8


def test_the_loss_scale_finds_its_value_before_faults_count() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    rig = Rig(max_in_a_row=2, scaler=scaler)
    for _ in range(17):  # 65 536 down to a half
        rig.step("inf gradient")
    rig.skipped.settle()
    assert scaler.get_scale() == 0.5
    assert (rig.skipped.total, rig.skipped.in_a_row) == (17, 0)
    for _ in range(3):
        rig.step("inf gradient")
    with pytest.raises(NonFiniteTrainingError, match=r"3 steps in a row .* loss scale 0.125"):
        rig.skipped.settle()


@pytest.mark.parametrize("fault", FAULTS)
def test_with_a_gradient_scaler_a_skipped_step_changes_nothing_either(fault: str) -> None:
    rig = Rig(scaler=torch.amp.GradScaler("cpu", init_scale=16.0))
    rig.step()
    before = rig.snapshot()
    rig.step(fault)
    assert all(torch.equal(one, other) for one, other in zip(before, rig.snapshot(), strict=True))
    rig.step()
    assert all(tensor.isfinite().all() for tensor in rig.snapshot())
    assert any(not torch.equal(one, other) for one, other in zip(before, rig.snapshot(), strict=True))


def test_an_optimizer_that_is_not_fused_is_refused() -> None:
    accelerator, model = Accelerator(cpu=True), Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    heartbeat = HeartbeatSender(None, rank=0, num_ranks=1, stuck_after_s=None)
    with pytest.raises(AssertionError, match="fused"):
        Stepper(
            accelerator, model, optimizer, max_grad_norm=1.0, skipped=SkippedSteps(accelerator, 1), heartbeat=heartbeat
        )
