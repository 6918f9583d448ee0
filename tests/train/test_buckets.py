import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from sottovoce.train.batches import TrainBatch
from sottovoce.train.objective import LossSum
from sottovoce.train.step import settle_buckets

NUM_RANKS, NUM_STEPS, WIDTH = 3, 4, 300  # 2 MB of weights: DDP's first bucket holds 1 MB


class Stack(nn.Module):
    """Enough weights for several buckets, called as an objective is."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(6)])

    def forward(self, features: Tensor, tokens: Tensor, labels: Tensor) -> LossSum:
        counts = (labels >= 0).float()
        return LossSum((self.layers(features).square().mean(-1) * counts).sum() + 0.0 * tokens.sum(), counts.sum())


def train(accelerator: Accelerator, folder: Path, first: int, last: int, *, name: str) -> None:
    """Take some steps from the saved ones on, and save. Each call wraps the weights anew, as a restart does."""
    torch.manual_seed(0)
    stack = Stack()
    adam = torch.optim.AdamW(stack.parameters(), lr=1e-3)
    if first:
        saved = torch.load(folder / f"{first}.pt", weights_only=True)
        stack.load_state_dict(saved["weights"])
        adam.load_state_dict(saved["moments"])
    model, optimizer = accelerator.prepare(stack, adam)
    nothing = torch.full((1,), -100)
    settle_buckets(accelerator, model, optimizer, TrainBatch(torch.zeros(1, WIDTH), nothing, nothing, audio_s=0.0))
    for step in range(first, last):
        torch.manual_seed(10 * step + accelerator.process_index)
        loss: Any = model(torch.randn(8, WIDTH), torch.zeros(8), torch.zeros(8))
        accelerator.backward(loss.total)
        optimizer.step()
        optimizer.zero_grad()
    if accelerator.is_main_process:
        torch.save({"weights": stack.state_dict(), "moments": adam.state_dict()}, folder / f"{name}.pt")
    accelerator.wait_for_everyone()


def run_rank(rank: int, folder: str) -> None:
    """Train at once, then halfway and from there on."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(NUM_RANKS)}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    # Accelerate wants a port, but the ranks meet by a file, and one that is lost ends the others.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    torch.set_num_threads(1)
    meeting = InitProcessGroupKwargs(init_method=f"file://{folder}/meeting", timeout=timedelta(seconds=60))
    buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[meeting, buckets])
    half = NUM_STEPS // 2
    train(accelerator, Path(folder), 0, NUM_STEPS, name="at-once")
    train(accelerator, Path(folder), 0, half, name=str(half))
    train(accelerator, Path(folder), half, NUM_STEPS, name="resumed")
    accelerator.end_training()


@pytest.mark.slow
def test_three_restarted_ranks_end_with_the_same_bits(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_rank, (str(tmp_path),), nprocs=NUM_RANKS)  # type: ignore[attr-defined,no-untyped-call]
    at_once, resumed = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("at-once", "resumed"))
    for name, weight in at_once["weights"].items():
        assert torch.equal(weight, resumed["weights"][name]), name


def test_one_rank_has_nothing_to_settle() -> None:
    stack = Stack()
    batch = TrainBatch(torch.zeros(1, WIDTH), torch.zeros(1), torch.full((1,), -100), audio_s=0.0)
    settle_buckets(Accelerator(cpu=True), stack, torch.optim.SGD(stack.parameters()), batch)
    assert all(weight.grad is None for weight in stack.parameters())
