"""Encoded windows of an ONNX model, of one context or of several, as its decoder reads them together.

Shapes: B windows, M mel bins, F frames, P positions, D width.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sottovoce.schema import LogMel

# Self-attention's scores grow with the square of a window: 72 MB for 30 s of whisper-base. Several such windows at once
# are no faster than one after the other.
_FRAMES_AT_ONCE = 3_000
# Kernels sum attention in blocks. In whole blocks a window's sums are the same whatever is appended, to the bit: what
# is appended adds zeros.
_BLOCK_POSITIONS = 64


@dataclass(frozen=True)
class EncodedWindows:
    """The encoder's output for a batch of windows."""

    states: onnxruntime.OrtValue
    """(B, P, D), zero behind the positions of a window."""
    num_positions: NDArray[np.int64]
    """(B,) positions of each window."""
    bias: onnxruntime.OrtValue | None
    """(B, 1, 1, P): 0 at a window's positions and minus infinity behind them; None for a decoder without this input."""

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "EncodedWindows":
        """Copy some of the windows, which may be repeated."""
        bias = None if self.bias is None else take_rows(self.bias, rows)
        return EncodedWindows(take_rows(self.states, rows), self.num_positions[list(rows)], bias)

    def window(self, row: int) -> NDArray[np.float32]:
        """Return the states (1, P, D) of one window, at its own positions only."""
        states: NDArray[np.float32] = self.states.numpy()[row : row + 1, : self.num_positions[row]]
        return states


def encode_windows(
    encoder: onnxruntime.InferenceSession, spectrograms: Sequence[LogMel], *, mixes_contexts: bool
) -> EncodedWindows:
    """Encode windows, each at its own context, as many of one context at once as memory should hold.

    Args:
        encoder: the graph.
        spectrograms: (M, F) of each window. F is the same for all unless the decoder mixes contexts.
        mixes_contexts: whether the decoder reads a bias, see ``export/attention_bias.py``. Windows are then padded to
            the longest, in whole blocks of positions.
    """
    rows_by_length: dict[int, list[int]] = defaultdict(list)
    for row, spectrogram in enumerate(spectrograms):
        rows_by_length[spectrogram.shape[1]].append(row)
    parts: list[tuple[list[int], onnxruntime.OrtValue]] = []
    for num_frames, rows in rows_by_length.items():
        size = max(1, _FRAMES_AT_ONCE // num_frames)
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            parts.append((some, _encode_together(encoder, np.stack([spectrograms[row] for row in some]))))
    num_positions = np.zeros(len(spectrograms), dtype=np.int64)
    for rows, states in parts:
        num_positions[rows] = states.shape()[1]
    if len(parts) == 1 and not mixes_contexts:
        return EncodedWindows(parts[0][1], num_positions, None)
    longest = int(num_positions.max())
    if mixes_contexts:
        longest = -(-longest // _BLOCK_POSITIONS) * _BLOCK_POSITIONS
    padded = np.zeros((len(spectrograms), longest, parts[0][1].shape()[2]), dtype=np.float32)
    for rows, states in parts:
        padded[rows, : states.shape()[1]] = states.numpy()
    bias = _bias(num_positions, longest) if mixes_contexts else None
    return EncodedWindows(onnxruntime.OrtValue.ortvalue_from_numpy(padded), num_positions, bias)


def take_rows(value: onnxruntime.OrtValue, rows: Sequence[int] | NDArray[np.int64]) -> onnxruntime.OrtValue:
    """Copy rows of a buffer."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.take(value.numpy(), rows, axis=0))


def _bias(num_positions: NDArray[np.int64], longest: int) -> onnxruntime.OrtValue:
    beyond = np.arange(longest) >= num_positions[:, None]
    bias = np.where(beyond, -np.inf, 0.0).astype(np.float32)
    return onnxruntime.OrtValue.ortvalue_from_numpy(bias[:, None, None, :])


def _encode_together(
    encoder: onnxruntime.InferenceSession, input_features: NDArray[np.float32]
) -> onnxruntime.OrtValue:
    """Encode windows of one context (B, M, F) in one call, into a buffer that the decoder reads without a copy."""
    binding = encoder.io_binding()
    binding.bind_cpu_input("input_features", input_features)
    binding.bind_output("last_hidden_state")
    encoder.run_with_iobinding(binding)
    (encoded,) = binding.get_outputs()
    return encoded
