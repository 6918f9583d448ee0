"""Every graph of a variant is loaded and run, whether our engine reads it or not."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sottovoce.errors import CheckpointError
from sottovoce.model.variants import PARTS
from sottovoce.recognize.onnx_engine import load_session
from sottovoce.recognize.onnx_trial import try_graphs

pytestmark = pytest.mark.slow  # what they try takes 8 s to make


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_every_graph_of_a_whole_export_is_loaded_and_passes(tiny_export, variant, monkeypatch):
    loaded = []

    def load(path: Path, *, num_threads: int):
        loaded.append(path.name.removesuffix(".onnx").removesuffix("_int8"))
        return load_session(path, num_threads=num_threads)

    monkeypatch.setattr("sottovoce.recognize.onnx_trial.load_session", load)
    try_graphs(tiny_export / variant, variant)
    assert loaded == [*PARTS]


@pytest.mark.parametrize("part", ["encoder_model", "decoder_model", "decoder_with_past_model", "decoder_model_merged"])
def test_a_graph_that_was_cut_off_is_found(tiny_export, tmp_path, part):
    path = copy(tiny_export, tmp_path) / "onnx" / f"{part}.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=part):
        try_graphs(tmp_path / "fp32", "fp32")


def test_a_file_of_another_size_than_was_exported_is_found(tiny_export, tmp_path):
    folder = tmp_path / "fp32"
    shutil.copytree(tiny_export / "fp32", folder)
    with (folder / "onnx" / "encoder_model.onnx").open("ab") as file:
        file.write(b"\0" * 7)
    with pytest.raises(CheckpointError, match=r"its graphs have \d+ bytes, and \d+ were exported; copy or export them"):
        try_graphs(folder, "fp32")


def test_a_graph_that_fails_at_its_first_token_is_found(tiny_export, tmp_path):
    lookup = helper.make_node("Gather", ["table", "beyond"], ["out"])
    encoder = write_encoder(tiny_export, tmp_path, lookup, table=np.zeros(3, np.float32), beyond=np.array([9]))
    with pytest.raises(CheckpointError, match=r"encoder_model\.onnx: it does not run"):
        try_graphs(encoder, "fp32")


def test_a_graph_that_computes_no_numbers_is_found(tiny_export, tmp_path):
    add = helper.make_node("Add", ["input_features", "broken"], ["out"])
    encoder = write_encoder(tiny_export, tmp_path, add, broken=np.full((1, 80, 1), np.nan, np.float32))
    with pytest.raises(CheckpointError, match="values that are not finite; copy or export it again"):
        try_graphs(encoder, "fp32")


def copy(export: Path, folder: Path) -> Path:
    """Copy fp32 without its record, as a variant of unknown size."""
    shutil.copytree(export / "fp32", folder / "fp32", ignore=shutil.ignore_patterns("record.json"))
    return folder / "fp32"


def write_encoder(export: Path, folder: Path, node: onnx.NodeProto, **constants: np.ndarray) -> Path:
    """Replace the encoder by one node."""
    variant = copy(export, folder)
    features = helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["batch_size", 80, "num_frames"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph([node], "encoder", [features], [out], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, variant / "onnx" / "encoder_model.onnx")
    return variant
