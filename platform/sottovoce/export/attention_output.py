"""Let an exported decoder also tell where it looks: what the ONNX engine times words by.

The decoder that reads a prefix gets one more output, which Optimum's merging carries into the merged decoder's branch
without a cache; the branch of ordinary steps gives an empty constant in its place. So words are timed by the graph that
wrote them, in one reading of prefix, text and end token. The other way, a third graph for this alone, holds the
decoder's weights once more and runs the same products: for micro 44 MB more in fp32 and 12 MB in int8, against 900
bytes. Ordinary steps take as long as without the output: 2.9 to 3.2 ms in fp32 and 2.2 to 2.3 ms in int8, in either of
two sessions of each kind (micro, one thread of a busy machine, 2026-11). A window's words cost four to five steps.
Scores before their softmax are given, since the padding beyond the sound is cut off first.

Readers of the layout that know nothing of the output, as Transformers.js and Optimum, read the rest as before.
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

    Weights that stand in a file of their own stay there.

    Args:
        path: of the graph, as Optimum traces it.
        heads: H of the decoder's; the output has them layer by layer.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    chosen = sorted(heads)
    layers = sorted({layer for layer, _ in chosen})
    parts = [_gather_heads(graph, layer, [head for at, head in chosen if at == layer]) for layer in layers]
    graph.node.append(
        helper.make_node("Concat", parts, [ALIGNMENT_SCORES], name=f"/{ALIGNMENT_SCORES}/Concat", axis=_HEAD_AXIS)
    )
    axes: list[str | int | None] = ["batch_size", len(chosen), "decoder_sequence_length", "encoder_sequence_length"]
    graph.output.append(helper.make_tensor_value_info(ALIGNMENT_SCORES, TensorProto.FLOAT, axes))
    onnx.save(model, path)


def _gather_heads(graph: GraphProto, layer: int, heads: Sequence[int]) -> str:
    """Pick heads of one layer's scores; gives the name of what was picked."""
    indices, picked = f"{ALIGNMENT_SCORES}_{layer}_heads", f"/{ALIGNMENT_SCORES}/{layer}"
    graph.initializer.append(numpy_helper.from_array(np.array(heads, dtype=np.int64), indices))
    scores = _softmax(graph, layer).input[0]
    graph.node.append(helper.make_node("Gather", [scores, indices], [picked], name=picked, axis=_HEAD_AXIS))
    return picked


def _softmax(graph: GraphProto, layer: int) -> NodeProto:
    """Find the softmax of a layer's cross-attention by the module it was traced in."""
    scope = f"/layers.{layer}/encoder_attn/"
    found: list[NodeProto] = [node for node in graph.node if node.op_type == "Softmax" and scope in node.name]
    assert len(found) == 1, f"the trace has {len(found)} softmaxes in {scope}"
    return found[0]
