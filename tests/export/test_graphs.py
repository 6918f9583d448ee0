"""The exported files themselves: axes, parity with torch, sizes, layout."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from sottovoce.export.quantize import quantize_graph
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.variants import PARTS, onnx_path
from sottovoce.recognize.onnx_engine import load_session

pytestmark = pytest.mark.slow  # what they look into takes 8 s to make

LOGIT_TOLERANCE = 1e-4  # float32; the tiny model's logits reach 10, measured 9e-6
ROOT_FILES = {
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
}


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_each_variant_has_every_file_of_the_transformers_js_layout(tiny_export, variant):
    folder = tiny_export / variant
    assert {path.name for path in folder.iterdir()} == ROOT_FILES | {"onnx", "parity.json", "record.json"}
    suffix = "" if variant == "fp32" else "_int8"
    assert {path.name for path in (folder / "onnx").iterdir()} == {f"{part}{suffix}.onnx" for part in PARTS}


@pytest.mark.parametrize("name", sorted(ROOT_FILES - {"generation_config.json", "config.json"}))
def test_root_files_are_the_checkpoints(tiny_checkpoint, tiny_export, name):
    assert (tiny_export / "int8" / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_configs_keep_the_languages_and_the_audio_context(tiny_export):
    generation = json.loads((tiny_export / "int8" / "generation_config.json").read_text())
    config = json.loads((tiny_export / "int8" / "config.json").read_text())
    assert len(generation["lang_to_id"]) == 99
    assert generation["no_timestamps_token_id"] == 50_363
    assert config["audio_context_s"] == [2.0, 10.0]


@pytest.mark.parametrize("num_frames", [200, 600, 1_000, 3_000])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_encoder_reads_any_context_as_torch_does(tiny_checkpoint, tiny_export, num_frames, batch_size):
    model = load_checkpoint(tiny_checkpoint).model
    features = np.random.default_rng(0).uniform(-1, 1, (batch_size, 80, num_frames)).astype(np.float32)
    with torch.inference_mode():
        expected = model.model.encoder(torch.from_numpy(features)).last_hidden_state.numpy()
    session = onnxruntime.InferenceSession(str(onnx_path(tiny_export / "fp32", "encoder_model", "fp32")))
    encoded = session.run(None, {"input_features": features})[0]
    assert encoded.shape == (batch_size, num_frames // 2, 32)
    np.testing.assert_allclose(encoded, expected, atol=LOGIT_TOLERANCE)


def test_fp32_logits_equal_torchs_at_every_context_and_batch_size(tiny_export):
    report = json.loads((tiny_export / "fp32" / "parity.json").read_text())
    assert [(case["num_frames"], case["batch_size"]) for case in report["cases"]] == [
        (frames, batch) for frames in (200, 600, 1_000) for batch in (1, 3)
    ]
    assert report["max_abs_difference"] < LOGIT_TOLERANCE
    assert all(case["max_abs_logit"] > 1 for case in report["cases"])
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__


def test_int8_logits_stay_near_torchs(tiny_export):
    report = json.loads((tiny_export / "int8" / "parity.json").read_text())
    largest = max(case["max_abs_logit"] for case in report["cases"])
    assert LOGIT_TOLERANCE < report["max_abs_difference"] < 0.2 * largest


@pytest.mark.parametrize("part", PARTS)
def test_int8_weights_leave_room_for_the_16_bit_sums_of_processors_without_vnni(tiny_export, part):
    graph = onnx.load(onnx_path(tiny_export / "int8", part, "int8")).graph
    stored = [graph, *(attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))]
    weights = [
        numpy_helper.to_array(tensor)
        for one in stored
        for tensor in one.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert weights
    assert {int(np.abs(weight.astype(int)).max()) for weight in weights} == {64}, "2 * 255 * 64 < 2 ** 15"


def test_weights_of_all_8_bits_from_earlier_exports_are_summed_exactly(tmp_path):
    """On AVX2 without VNNI, ONNX Runtime's own setting would be wrong by 10 %."""
    random = np.random.default_rng(0)
    weights = random.choice(np.array([-127, 127], np.int8), (512, 16))
    activations = random.integers(200, 256, (4, 512)).astype(np.uint8)
    product = helper.make_node("MatMulInteger", ["activations", "weights"], ["sums"])
    inputs = [helper.make_tensor_value_info("activations", onnx.TensorProto.UINT8, ["rows", 512])]
    outputs = [helper.make_tensor_value_info("sums", onnx.TensorProto.INT32, None)]
    graph = helper.make_graph([product], "product", inputs, outputs, [numpy_helper.from_array(weights, "weights")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "product.onnx"
    )
    sums = load_session(tmp_path / "product.onnx", num_threads=1).run(None, {"activations": activations})[0]
    np.testing.assert_array_equal(sums, activations.astype(int) @ weights.astype(int))


@pytest.mark.parametrize("part", ["decoder_model", "decoder_with_past_model", "decoder_model_merged"])
def test_int8_decoders_are_less_than_a_third_of_fp32(tiny_export, part):
    fp32, int8 = (onnx_path(tiny_export / variant, part, variant).stat().st_size for variant in ("fp32", "int8"))
    assert int8 < fp32 / 3


@pytest.mark.parametrize("variant", ["fp32", "int8"])
@pytest.mark.parametrize("part", ["decoder_model", "decoder_with_past_model", "decoder_model_merged"])
def test_the_token_embedding_is_stored_once(tiny_export, variant, part):
    graph = onnx.load(onnx_path(tiny_export / variant, part, variant)).graph
    tables = [tensor.name for tensor in graph.initializer if sorted(tensor.dims) == [32, 51_865]]
    assert len(tables) == 1


def test_the_int8_output_layer_multiplies_integers(tiny_export):
    graph = onnx.load(onnx_path(tiny_export / "int8", "decoder_with_past_model", "int8")).graph
    produced = {name: node for node in graph.node for name in node.output}
    transposed = next(node for node in graph.node if node.op_type == "Transpose" and "embed_tokens" in node.input[0])
    readers = {node.op_type for node in graph.node if transposed.output[0] in node.input}
    assert readers == {"MatMulIntegerToFloat"}
    assert "logits" in produced
    assert not [node for node in graph.node if node.op_type == "DequantizeLinear"]


def test_a_loud_position_costs_its_neighbours_nothing_in_int8(tmp_path):
    """One scale for all positions would leave the others a thousandth of the levels."""
    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.standard_normal((64, 48)).astype(np.float32), "weight")
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "weight"], ["y"])], "g", ends[:1], ends[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "fp32.onnx"
    )
    quantize_graph(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    fp32, int8 = (load_session(tmp_path / f"{name}.onnx", num_threads=1) for name in ("fp32", "int8"))
    quiet = random.standard_normal((2, 5, 64)).astype(np.float32)
    loud = quiet.copy()
    loud[1, 4] *= 1_000.0
    quiet[0, 0] = loud[0, 0] = 0.0  # silence
    expected = fp32.run(None, {"x": quiet})[0]
    alone, beside = (int8.run(None, {"x": x})[0] for x in (quiet, loud))
    np.testing.assert_array_equal(beside.reshape(10, -1)[:-1], alone.reshape(10, -1)[:-1])
    assert np.abs(alone - expected).max() < 0.02 * np.abs(expected).max()
