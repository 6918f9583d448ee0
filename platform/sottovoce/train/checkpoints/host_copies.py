"""Copies of tensors in this machine's own memory, taken in a moment, so that training may go on changing them."""

from collections.abc import Mapping

import torch
from torch import Tensor


class HostCopies:
    """Memory that is filled anew with each copy: asking the system for it costs more than the copying.

    A copy is good until the next one is taken.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors, from whatever device.

        Returns:
            The copies under the same names, on the CPU.
        """
        self._buffers = {name: self._buffer(name, tensor) for name, tensor in tensors.items()}
        is_waiting = False
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._buffers[name].copy_(tensor, non_blocking=tensor.is_cuda)
                is_waiting = is_waiting or tensor.is_cuda
        if is_waiting:
            torch.cuda.synchronize()
        return dict(self._buffers)

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is not None and buffer.shape == tensor.shape and buffer.dtype == tensor.dtype:
            return buffer
        # pinned memory takes what a GPU sends without a stop on the way
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
