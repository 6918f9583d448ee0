"""Graphs over 2 GB, which no message of protobuf holds; the limit is lowered here, so that small ones pass it."""

import os
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sottovoce.export import onnx as tracing
from sottovoce.export.onnx import export_onnx
from sottovoce.export.quantize import quantize_graph
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.variants import PARTS, onnx_path

WIDTH, NUM_LAYERS = 64, 4
OPTIMUMS_SWITCH = "FORCE_ONNX_EXTERNAL_DATA"  # what it does of itself with a trace over 2 GB


def limit_messages(monkeypatch, num_bytes):
    """Let onnx write and infer, as protobuf would have it, only what ``num_bytes`` hold."""

    def limited(function):
        def check(*arguments, **options):
            for message in arguments:
                if hasattr(message, "ByteSize") and message.ByteSize() > num_bytes:
                    raise ValueError(f"a message of {message.ByteSize()} bytes exceeds the limit of {num_bytes}")
            return function(*arguments, **options)

        return check

    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", num_bytes)
    for owner, name in (
        (onnx.serialization._ProtobufSerializer, "serialize_proto"),
        (onnx.shape_inference, "infer_shapes"),
        (onnx.checker, "check_model"),
    ):
        monkeypatch.setattr(owner, name, limited(getattr(owner, name)))


def layered_graph():
    """Build a chain of matrix products."""
    random = np.random.default_rng(0)
    names = ["sound", *(f"layer{place}" for place in range(NUM_LAYERS))]
    weights = [
        numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8.0, f"{name}_weight")
        for name in names[1:]
    ]
    nodes = [
        helper.make_node("MatMul", [before, f"{name}_weight"], [name], name=name) for before, name in pairwise(names)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, WIDTH]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_graph_over_the_limit_is_quantized_as_one_below_it(monkeypatch, tmp_path):
    onnx.save(layered_graph(), tmp_path / "small.onnx")
    quantize_graph(tmp_path / "small.onnx", tmp_path / "expected.onnx")
    onnx.save(layered_graph(), tmp_path / "large.onnx", save_as_external_data=True, location="large.onnx_data")
    limit_messages(monkeypatch, 2 * WIDTH * WIDTH * 4)
    with pytest.raises(ValueError, match="exceeds the limit"):
        onnx.save(layered_graph(), tmp_path / "inside.onnx")
    quantize_graph(tmp_path / "large.onnx", tmp_path / "found.onnx")
    assert (tmp_path / "found.onnx").read_bytes() == (tmp_path / "expected.onnx").read_bytes()
    assert "MatMulIntegerToFloat" in {node.op_type for node in onnx.load(tmp_path / "found.onnx").graph.node}


@pytest.mark.slow
def test_a_checkpoint_over_the_limit_is_exported_with_its_weights_beside_the_graphs(
    monkeypatch, tiny_checkpoint, tmp_path
):
    trace = tracing.export_models

    def trace_large(*arguments, **options):
        monkeypatch.setitem(os.environ, OPTIMUMS_SWITCH, "1")
        trace(*arguments, **options)
        monkeypatch.delitem(os.environ, OPTIMUMS_SWITCH)

    monkeypatch.setattr(tracing, "export_models", trace_large)
    limit_messages(monkeypatch, 3_000_000)  # the decoders have more than twice as much
    export_onnx(load_checkpoint(tiny_checkpoint), tmp_path)
    for part in PARTS:
        path = onnx_path(tmp_path, part, "fp32")
        assert path.with_name(f"{path.name}_data").stat().st_size > path.stat().st_size, part
        onnxruntime.InferenceSession(str(path))
