import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from ports import free_port
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


def train(rank: int, port: int, first: int, last: int, folder: str) -> None:
    """Take some steps from the saved ones on, and save."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(NUM_RANKS), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)])
    torch.manual_seed(0)
    stack = Stack()
    adam = torch.optim.AdamW(stack.parameters(), lr=1e-3)
    if first:
        saved = torch.load(Path(folder) / f"{first}.pt", weights_only=True)
        stack.load_state_dict(saved["weights"])
        adam.load_state_dict(saved["moments"])
    model, optimizer = accelerator.prepare(stack, adam)
    nothing = torch.full((1,), -100)
    settle_buckets(accelerator, model, optimizer, TrainBatch(torch.zeros(1, WIDTH), nothing, nothing, audio_s=0.0))
    for step in range(first, last):
        torch.manual_seed(10 * step + rank)
        loss: Any = model(torch.randn(8, WIDTH), torch.zeros(8), torch.zeros(8))
        accelerator.backward(loss.total)
        optimizer.step()
        optimizer.zero_grad()
    if rank == 0:
        state = {"weights": stack.state_dict(), "moments": adam.state_dict()}
        torch.save(state, Path(folder) / f"{last}{'' if first else '-at-once'}.pt")
    accelerator.end_training()


def start(first: int, last: int, folder: Path) -> None:
    torch.multiprocessing.spawn(train, (free_port(), first, last, str(folder)), nprocs=NUM_RANKS)  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_three_restarted_ranks_end_with_the_same_bits(tmp_path: Path) -> None:
    start(0, NUM_STEPS, tmp_path)
    start(0, NUM_STEPS // 2, tmp_path)
    (tmp_path / f"{NUM_STEPS // 2}-at-once.pt").rename(tmp_path / f"{NUM_STEPS // 2}.pt")
    start(NUM_STEPS // 2, NUM_STEPS, tmp_path)
    at_once, resumed = (torch.load(tmp_path / f"{NUM_STEPS}{end}.pt", weights_only=True) for end in ("-at-once", ""))
    for name, weight in at_once["weights"].items():
        assert torch.equal(weight, resumed["weights"][name]), name


def test_one_rank_has_nothing_to_settle() -> None:
    stack = Stack()
    batch = TrainBatch(torch.zeros(1, WIDTH), torch.zeros(1), torch.full((1,), -100), audio_s=0.0)
    settle_buckets(Accelerator(cpu=True), stack, torch.optim.SGD(stack.parameters()), batch)
    assert all(weight.grad is None for weight in stack.parameters())
