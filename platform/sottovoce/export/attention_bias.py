"""Add an input to a merged decoder: a bias on its cross-attention, so that windows of several lengths share a batch.

A model with trimmed contexts encodes each window at its own length. With the bias the decoder reads them together,
padded to the longest: the bias is 0 where a window has positions and minus infinity behind them. The weights of the
decoder are then read once for a token of each of eight sentences, not eight times.

The input has a default of 0 and may be left out: Optimum, Transformers.js and onnx-asr run the graph as before. It is
added to decoders of models with trimmed contexts only; others read 30 s of every window. ONNX Runtime warns once, as it
loads such a graph, that the default is not a constant.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from sottovoce.model.variants import ATTENTION_BIAS

_SCOPE = "/encoder_attn/"  # of cross-attention's nodes, after the module they were traced in


def add_attention_bias(path: Path) -> None:
    """Add the input ``encoder_attention_bias`` (B, 1, 1, P) to a merged decoder, in place.

    Weights in a file of their own stay there.

    Args:
        path: the graph, as Optimum merges it.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    axes: list[str | int | None] = ["batch_size", 1, 1, "encoder_sequence_length"]
    graph.input.append(helper.make_tensor_value_info(ATTENTION_BIAS, TensorProto.FLOAT, axes))
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), ATTENTION_BIAS))
    for branch in (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")):
        _add_to_scores(branch)
    onnx.save(model, path)


def has_attention_bias(path: Path) -> bool:
    """Return whether a graph has the input."""
    graph = onnx.load(path, load_external_data=False).graph
    return any(entry.name == ATTENTION_BIAS for entry in graph.input)


def _add_to_scores(graph: GraphProto) -> None:
    """Add the bias to the scores before each softmax of cross-attention."""
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Softmax" and _SCOPE in node.name:
            biased = f"{node.input[0]}_biased"
            nodes.append(helper.make_node("Add", [node.input[0], ATTENTION_BIAS], [biased], name=f"{node.name}_bias"))
            node.input[0] = biased
        nodes.append(node)
    assert len(nodes) > len(graph.node), f"the graph {graph.name} has no softmax in {_SCOPE}"
    del graph.node[:]
    graph.node.extend(nodes)
