"""Add an output to an exported decoder: the cross-attention scores that word times are derived from.

The decoder that reads a prefix gets one more output. Optimum's merging carries it into the branch of the merged decoder
that runs without a cache; the branch of ordinary steps outputs an empty constant instead. So the graph that generated
the words also times them, in one pass over prefix, text and end token. The alternative, a third graph for this purpose,
would hold the decoder's weights once more and run the same products: for micro 44 MB more in fp32 and 12 MB in int8,
against 900 bytes. Ordinary steps take as long as without the output: 2.9 to 3.2 ms in fp32 and 2.2 to 2.3 ms in int8,
in two sessions of each kind (micro, one thread of a busy machine, 2026-11). The words of a window cost four to five
steps. The output holds the scores before the softmax, because positions beyond the audio are cut off first.

Readers of the layout that do not know the output, such as Transformers.js and Optimum, read the rest as before.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from sottovoce.model.variants import ALIGNMENT_SCORES
from sottovoce.words.cross_attention import Head

_HEAD_AXIS = 1  # of a layer's scores (B, heads, T, P)


def add_alignment_scores(path: Path, heads: Sequence[Head]) -> None:
    """Add the output ``alignment_scores`` (B, H, T, P) to a decoder without a cache, in place.

    Weights in a file of their own stay there.

    Args:
        path: the graph, as Optimum traces it.
        heads: H heads of the decoder; the output has them layer by layer.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    chosen = sorted(heads)
    layers = sorted({layer for layer, _ in chosen})
    parts = [_gather_heads(graph, layer, [head for index, head in chosen if index == layer]) for layer in layers]
    graph.node.append(
        helper.make_node("Concat", parts, [ALIGNMENT_SCORES], name=f"/{ALIGNMENT_SCORES}/Concat", axis=_HEAD_AXIS)
    )
    axes: list[str | int | None] = ["batch_size", len(chosen), "decoder_sequence_length", "encoder_sequence_length"]
    graph.output.append(helper.make_tensor_value_info(ALIGNMENT_SCORES, TensorProto.FLOAT, axes))
    onnx.save(model, path)


def _gather_heads(graph: GraphProto, layer: int, heads: Sequence[int]) -> str:
    """Select heads of one layer's scores; return the name of the selection."""
    indices, picked = f"{ALIGNMENT_SCORES}_{layer}_heads", f"/{ALIGNMENT_SCORES}/{layer}"
    graph.initializer.append(numpy_helper.from_array(np.array(heads, dtype=np.int64), indices))
    scores = _softmax(graph, layer).input[0]
    graph.node.append(helper.make_node("Gather", [scores, indices], [picked], name=picked, axis=_HEAD_AXIS))
    return picked


def _softmax(graph: GraphProto, layer: int) -> NodeProto:
    """Return the softmax of a layer's cross-attention, found by the module it was traced in."""
    scope = f"/layers.{layer}/encoder_attn/"
    found: list[NodeProto] = [node for node in graph.node if node.op_type == "Softmax" and scope in node.name]
    assert len(found) == 1, f"the trace has {len(found)} softmaxes in {scope}"
    return found[0]
