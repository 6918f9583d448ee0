"""Serialize tensors as a safetensors file in parts, without a copy of the whole file in memory.

The library's own ``save_file`` writes to local paths only, and its ``save`` needs the whole file in memory.
The layout is byte for byte the library's (checked in test_tensor_file): an 8-byte little-endian length, a JSON header
padded with spaces to a multiple of 8, then the data; tensors of wide types come first, then the order is by name.
Source: https://github.com/huggingface/safetensors, section Format.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class HostCopies:
    """Buffers for copies of tensors, reused by each copy since allocating them costs more than copying.

    A copy is valid until the next one is taken.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors from any device.

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
        # a GPU can copy into pinned memory without an intermediate buffer
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)


# The library's order of types, widest first; the rank of a type is its index here.
_TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANKS = {data_type: rank for rank, data_type in enumerate(_TYPES)}
_ALIGNMENT = 8


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file that is generated while it is read.

    Args:
        tensors: on the CPU; they must not change before the file has been read.
        metadata: of the header.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """Yield the header, then the bytes of each tensor."""
        ordered = sorted(self.tensors.items(), key=lambda item: (_RANKS[item[1].dtype], item[0]))
        header: dict[str, object] = {"__metadata__": dict(self.metadata)} if self.metadata else {}
        end = 0
        for name, tensor in ordered:
            start, end = end, end + tensor.numel() * tensor.element_size()
            header[name] = {
                "dtype": _TYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        yield len(text).to_bytes(8, "little") + text
        for _, tensor in ordered:
            raw: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()  # typed without buffer protocol
            yield memoryview(raw)
