"""The exported files themselves: axes, parity with torch, sizes, layout."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.variants import PARTS, onnx_path

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


def has_vnni() -> bool:
    """Whether the processor sums int8 products without saturation."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "vnni" in cpuinfo.read_text(encoding="utf-8")


def test_int8_logits_stay_near_torchs(tiny_export):
    report = json.loads((tiny_export / "int8" / "parity.json").read_text())
    largest = max(case["max_abs_logit"] for case in report["cases"])
    bound = 0.2 if has_vnni() else 0.6  # without VNNI sums of int8 products saturate: measured 0.49 on an AMD EPYC
    assert LOGIT_TOLERANCE < report["max_abs_difference"] < bound * largest


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
    assert readers == {"MatMulInteger"}
    assert "logits" in produced
    assert not [node for node in graph.node if node.op_type == "DequantizeLinear"]
