"""Run every graph of an exported variant once, whether our own engine reads it or not.

Our engine reads the encoder and the merged decoder. Transformers.js, Optimum and others also read the two split
decoders, which stand in the same folder. A file that was cut off while it was copied is found here.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sottovoce.errors import CheckpointError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.source import read_config
from sottovoce.model.variants import PARTS, model_bytes, onnx_path, read_variant_record
from sottovoce.recognize.onnx_engine import ONNX_ERRORS, load_session
from sottovoce.schema import FRAMES_PER_SECOND

_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
_FRAMES, _POSITIONS, _BRANCH = "num_frames", "encoder_sequence_length", "use_cache_branch"


def try_graphs(folder: Path, variant: str) -> None:
    """Load each graph in a variant's folder, one after the other, and run it on one token of the shortest window.

    Args:
        folder: the variant's folder.
        variant: which graphs to read.

    Raises:
        CheckpointError: a graph that cannot be loaded or run, an output that is not finite, or files whose size differs
            from what was exported.
    """
    record, num_bytes = read_variant_record(folder), model_bytes(folder, variant)
    if record is not None and record.size_bytes != num_bytes:
        reason = f"its graphs have {num_bytes} bytes, and {record.size_bytes} were exported; copy or export them again"
        raise CheckpointError(folder, reason)
    num_frames = round(AudioContext.read(read_config(folder)).min_s * FRAMES_PER_SECOND)
    for part in PARTS:
        path = onnx_path(folder, part, variant)
        if path.is_file():
            _try_graph(path, {_FRAMES: num_frames, _POSITIONS: num_frames // 2})


def _try_graph(path: Path, sizes: dict[str, int]) -> None:
    """Load and run one graph; the merged decoder in both of its branches.

    Args:
        path: the ONNX file.
        sizes: of the axes that have a name; 1 for every other one.

    Raises:
        CheckpointError: see ``try_graphs``.
    """
    graph = load_session(path, num_threads=1)
    inputs = {entry.name: _zeros(entry, sizes) for entry in graph.get_inputs()}
    for uses_cache in (False, True) if _BRANCH in inputs else (False,):
        branch = {_BRANCH: np.array([uses_cache])} if _BRANCH in inputs else {}
        try:
            outputs = graph.run(None, inputs | branch)
        except ONNX_ERRORS as error:
            raise CheckpointError(path, f"it does not run ({error}); copy or export it again") from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise CheckpointError(path, "it computes values that are not finite; copy or export it again")


def _zeros(entry: onnxruntime.NodeArg, sizes: dict[str, int]) -> NDArray[np.generic]:
    shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in entry.shape]
    return np.zeros(shape, _TYPES[entry.type])
