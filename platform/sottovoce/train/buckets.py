"""The order in which gradients are added up over ranks, made the same from the first step after any start."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from sottovoce.train.collate import TrainBatch


def settle_buckets(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, empty: TrainBatch
) -> None:
    """Let DDP divide the gradients into buckets once and for all; changes no weights, and every rank must call it.

    DDP divides them anew after its first backward pass, in the order in which they came. Three ranks and more add up a
    bucket's parts in an order that follows from their place in it, so the first step after a resume, in the old
    buckets, would round otherwise than the same step of a run that was never killed (seen with gloo and 3 ranks).

    Args:
        accelerator: knows the ranks.
        model: as it was prepared.
        optimizer: of its weights.
        empty: a batch without labels, whose gradient is zero.
    """
    if accelerator.num_processes == 1:
        return
    device = accelerator.device
    loss: Any = model(empty.input_features.to(device), empty.decoder_input_ids.to(device), empty.labels.to(device))
    accelerator.backward(loss.total)
    optimizer.zero_grad()
