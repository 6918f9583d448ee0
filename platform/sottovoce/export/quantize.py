"""The format int8: an fp32 variant quantized dynamically, weights in advance and activations at run time.

Three traps are avoided here. ONNX Runtime's quantizer ignores the branches of the merged decoder, so the split graphs
are quantized and merged again. It has no int8 convolution for signed weights, so only matrix products are quantized.
The output layer is the transposed token embedding, which the quantizer does not recognize as a constant; it would
convert the embedding to float at every step. So the transposed matrix is stored before quantization, and afterwards the
token look-up reads the quantized output layer: the largest matrix of a small Whisper is stored once, in int8.

Signed weights lose accuracy on a CPU with AVX2 but without VNNI, whose 16-bit sums saturate. Score a variant on the
kind of machine that serves it.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from optimum.onnx import merge_decoders

from sottovoce.export.parity import measure_parity
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.variants import Part, onnx_path

logger = logging.getLogger(__name__)

_SPLIT_PARTS: tuple[Part, ...] = ("encoder_model", "decoder_model", "decoder_with_past_model")
_TRANSPOSED = "_written_out"  # marks a weight that is the stored transpose of another


def write_int8(checkpoint: Checkpoint, folder: Path, *, versions: dict[str, str]) -> float:
    """Quantize the fp32 variant beside ``folder`` and compare it with torch: the exporter of int8 in ``FORMATS``.

    Returns:
        The largest difference of a logit from torch's.
    """
    quantize_int8(folder.parent / "fp32", folder)
    return measure_parity(checkpoint, folder, "int8", versions=versions).max_abs_difference


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


def quantize_graph(source: Path, target: Path) -> None:
    """Write one graph with its matrix products in int8.

    The graph of a large Whisper in fp32 is over 2 GB, more than a protobuf message holds. So every fp32 graph is
    written with its weights in a file beside it, and the quantizer infers shapes from that file. In int8 it fits.

    Args:
        source: an fp32 graph, its weights inside or beside it.
        target: the file to write, weights inside.
    """
    model = onnx.load(source)
    _write_out_transposed_weights(model)
    add_pre_process_metadata(model)  # else ONNX Runtime warns that it is missing
    with tempfile.TemporaryDirectory() as scratch:
        prepared, quantized = Path(scratch) / "prepared.onnx", Path(scratch) / "quantized.onnx"
        onnx.save(model, prepared, save_as_external_data=True, location=f"{prepared.name}_data")
        del model  # frees memory; the quantizer reads the file
        quantize_dynamic(
            prepared, quantized, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True
        )
        model = onnx.load(quantized)
    _look_up_in_output_layer(model)
    onnx.save(model, target)


def _write_out_transposed_weights(model: ModelProto) -> None:
    """Replace each Transpose of a stored weight by the transposed weight, which the quantizer sees as a constant."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        matrix = numpy_helper.to_array(weights[node.input[0]])
        transposed = np.ascontiguousarray(matrix.T)
        model.graph.initializer.append(numpy_helper.from_array(transposed, node.input[0] + _TRANSPOSED))
        _rename_input(model, node.output[0], node.input[0] + _TRANSPOSED)
        model.graph.node.remove(node)


def _rename_input(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _look_up_in_output_layer(model: ModelProto) -> None:
    """Look tokens up in the quantized output layer, and drop the float embedding.

    The output layer (D, V) was quantized symmetrically with one scale per token, so the embedding of a token is its
    column times its scale. It is stored as (V, D); ONNX Runtime transposes it once, at loading.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Gather" and node.input[0] in weights]:
        embedding = node.input[0]
        quantized = f"{embedding}{_TRANSPOSED}_quantized"
        if quantized not in weights:
            continue
        rows = np.ascontiguousarray(numpy_helper.to_array(weights[quantized]).T)
        model.graph.initializer.remove(weights[embedding])
        model.graph.initializer.remove(weights[quantized])
        model.graph.initializer.append(numpy_helper.from_array(rows, f"{embedding}_rows"))
        for index, replacement in enumerate(_look_up_nodes(node, embedding, quantized)):
            model.graph.node.insert(index + list(model.graph.node).index(node), replacement)
        model.graph.node.remove(node)


def _look_up_nodes(node: onnx.NodeProto, embedding: str, quantized: str) -> list[onnx.NodeProto]:
    """Return the nodes that replace ``node``, and the Transpose that yields the output layer."""
    token_ids, rows, scales = node.input[1], f"{embedding}_rows", f"{embedding}{_TRANSPOSED}_scale"
    names = {step: f"{node.output[0]}_{step}" for step in ("rows", "cast", "scales", "column")}
    axes = f"{embedding}_axes"
    return [
        helper.make_node("Transpose", [rows], [quantized], name=f"{quantized}_node", perm=[1, 0]),
        helper.make_node("Gather", [rows, token_ids], [names["rows"]], name=names["rows"]),
        helper.make_node("Cast", [names["rows"]], [names["cast"]], name=names["cast"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [scales, token_ids], [names["scales"]], name=names["scales"]),
        helper.make_node(
            "Constant", [], [axes], name=axes, value=numpy_helper.from_array(np.array([-1], dtype=np.int64))
        ),
        helper.make_node("Unsqueeze", [names["scales"], axes], [names["column"]], name=names["column"]),
        helper.make_node("Mul", [names["cast"], names["column"]], [node.output[0]], name=f"{node.output[0]}_scaled"),
    ]
