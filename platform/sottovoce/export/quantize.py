"""The format int8: an fp32 variant quantized dynamically, weights in advance and activations at run time.

ONNX Runtime's own quantizer scales all activations of a product by one factor, over all positions and all windows of a
batch. Whisper's feed-forward layers have a few activations far above all others, so most of the eight bits are lost;
and what is written for a window depends on the windows beside it. Here each position has a factor of its own, as in
LLM.int8() without its outlier columns (Dettmers et al. 2022, "vector-wise quantization").

The output layer is the transposed token embedding. It is stored once, in int8, for the token look-up and the output
layer: the largest matrix of a small Whisper. Convolutions stay in fp32: ONNX Runtime has none for signed weights.

Weights use 7 of their 8 bits. A CPU with AVX2 but without VNNI adds two products in 16 bits: 2 * 255 * 127 saturates,
2 * 255 * 64 does not. So the integer sums are equal on every processor, and the score of the export gate holds on all.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from optimum.onnx import merge_decoders

from sottovoce.export.attention_bias import add_attention_bias, has_attention_bias
from sottovoce.export.parity import measure_parity
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.variants import Part, onnx_path

logger = logging.getLogger(__name__)

_SPLIT_PARTS: tuple[Part, ...] = ("encoder_model", "decoder_model", "decoder_with_past_model")
_ORT = "com.microsoft"  # the namespace of ONNX Runtime's own operators
_LARGEST_WEIGHT = 64
_LARGEST_ACTIVATION = 127
_SMALLEST_RANGE = 1e-8  # of a position: silence must not be divided by zero
_CONSTANTS: Mapping[str, NDArray[np.generic]] = {
    "int8_last_axis": np.array([-1], dtype=np.int64),
    "int8_smallest_range": np.array(_SMALLEST_RANGE, dtype=np.float32),
    "int8_step": np.array(1.0 / _LARGEST_ACTIVATION, dtype=np.float32),
    "int8_zero": np.array(128, dtype=np.uint8),
}
"""What all products share. Activations are unsigned: the fast kernels multiply unsigned by signed."""


def write_int8(checkpoint: Checkpoint, folder: Path, *, variant: str, versions: dict[str, str]) -> float:
    """Quantize the fp32 variant beside ``folder`` and compare it with torch: the exporter of int8 in ``FORMATS``.

    Returns:
        The largest difference of a logit from torch's.
    """
    quantize_int8(folder.parent / "fp32", folder)
    return measure_parity(checkpoint, folder, variant, versions=versions).max_abs_difference


def quantize_int8(source: Path, target: Path) -> None:
    """Write the four int8 graphs of a variant.

    Args:
        source: the fp32 variant's folder.
        target: the folder that receives ``onnx/*_int8.onnx``.
    """
    onnx_path(target, "encoder_model", "int8").parent.mkdir(parents=True, exist_ok=True)
    for part in _SPLIT_PARTS:
        path = onnx_path(target, part, "int8")
        quantize_graph(onnx_path(source, part, "fp32"), path)
        logger.info(
            "quantized %s: %d to %d bytes", part, onnx_path(source, part, "fp32").stat().st_size, path.stat().st_size
        )
    merge_decoders(
        decoder=onnx_path(target, "decoder_model", "int8"),
        decoder_with_past=onnx_path(target, "decoder_with_past_model", "int8"),
        save_path=onnx_path(target, "decoder_model_merged", "int8"),
        strict=False,  # the decoder with past does not output encoder keys and values: they do not change
    )
    if has_attention_bias(onnx_path(source, "decoder_model_merged", "fp32")):
        add_attention_bias(onnx_path(target, "decoder_model_merged", "int8"))


def quantize_graph(source: Path, target: Path) -> None:
    """Write one graph with its matrix products in int8.

    Args:
        source: an fp32 graph, its weights inside or beside it.
        target: the file to write, weights inside.
    """
    model = onnx.load(source)
    quantizer = _Quantizer(model)
    nodes = [replacement for node in model.graph.node for replacement in quantizer.replace(node)]
    tensors = {**quantizer.weights, **quantizer.stored}
    read = {name for node in nodes for name in node.input}
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for name, tensor in tensors.items() if name in read)
    if _ORT not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(_ORT, 1))
    onnx.save(model, target)


class _Quantizer:
    """Replaces the nodes of one graph; ``stored`` holds the tensors that the replacements read."""

    def __init__(self, model: ModelProto) -> None:
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.stored = {name: numpy_helper.from_array(value, name) for name, value in _CONSTANTS.items()}
        self._embeddings = {
            node.output[0]: node.input[0]
            for node in model.graph.node
            if node.op_type == "Transpose" and node.input[0] in self.weights
        }
        self._quantized: set[str] = set()  # activations that several products read are quantized once

    def replace(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that take the place of one node; most stay as they are."""
        if node.op_type == "Gather" and node.input[0] in self._embeddings.values():
            return self._look_up(node)
        if node.op_type == "Transpose" and node.output[0] in self._embeddings:
            return [helper.make_node("Transpose", [f"{node.input[0]}_int8"], list(node.output), name=node.name)]
        if node.op_type != "MatMul":
            return [node]
        if (embedding := self._embeddings.get(node.input[1])) is not None:
            self._store(embedding, axis=1)
            return self._multiply(node, node.input[1], scales=f"{embedding}_scales")
        if node.input[1] in self.weights:
            self._store(node.input[1], axis=0)
            return self._multiply(node, f"{node.input[1]}_int8", scales=f"{node.input[1]}_scales")
        return [node]  # a product of activations

    def _store(self, name: str, *, axis: int) -> None:
        """Quantize a matrix symmetrically, each of the vectors along the axis by a scale of its own."""
        if f"{name}_int8" in self.stored:
            return
        matrix = numpy_helper.to_array(self.weights[name])
        largest = np.abs(matrix).max(axis=axis, keepdims=True)
        scales = np.where(largest > 0.0, largest / _LARGEST_WEIGHT, 1.0).astype(np.float32)
        for suffix, value in (("int8", np.rint(matrix / scales).astype(np.int8)), ("scales", scales.squeeze(axis))):
            self.stored[f"{name}_{suffix}"] = numpy_helper.from_array(value, f"{name}_{suffix}")

    def _look_up(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes of a look-up of token ids: a row times its scale."""
        embedding, token_ids, found = node.input[0], node.input[1], node.output[0]
        self._store(embedding, axis=1)
        return [
            _node("Gather", [f"{embedding}_int8", token_ids], f"{found}_row"),
            _node("Cast", [f"{found}_row"], f"{found}_cast", to=TensorProto.FLOAT),
            _node("Gather", [f"{embedding}_scales", token_ids], f"{found}_scale"),
            _node("Unsqueeze", [f"{found}_scale", "int8_last_axis"], f"{found}_column"),
            _node("Mul", [f"{found}_cast", f"{found}_column"], found),
        ]

    def _multiply(self, node: NodeProto, matrix: str, *, scales: str) -> list[NodeProto]:
        """Return the nodes of a product: activations (..., K) in int8, times a matrix (K, N) in int8, times scales."""
        activations, product = node.input[0], node.output[0]
        nodes = [] if activations in self._quantized else _quantize_activations(activations)
        self._quantized.add(activations)
        return [
            *nodes,
            _node(
                "MatMulIntegerToFloat",
                [f"{activations}_int8", matrix, "int8_step", scales, "int8_zero"],
                f"{product}_share",
                domain=_ORT,
            ),
            _node("Mul", [f"{product}_share", f"{activations}_range"], product),
        ]


def _quantize_activations(name: str) -> list[NodeProto]:
    """Return the nodes that divide each position by its largest activation and round it to 255 levels."""
    return [
        _node("Abs", [name], f"{name}_abs"),
        _node("ReduceMax", [f"{name}_abs", "int8_last_axis"], f"{name}_max", keepdims=1),
        _node("Max", [f"{name}_max", "int8_smallest_range"], f"{name}_range"),
        _node("Div", [name, f"{name}_range"], f"{name}_shares"),
        _node("QuantizeLinear", [f"{name}_shares", "int8_step", "int8_zero"], f"{name}_int8"),
    ]


def _node(kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: int) -> NodeProto:
    node = helper.make_node(kind, inputs, [output], name=output, domain=domain)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node
