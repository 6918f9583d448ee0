"""Which files of a model are named, and that their digests are those of ``sha256sum``."""

import hashlib

from made_up_models import make_checkpoint, make_export

from serve.models.file_digests import describe_files, digest_contents


def test_the_weights_come_first_and_only_what_is_read_is_named(tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoint")
    (folder / "record.json").write_text("{}")
    (folder / "optimizer.bin").write_bytes(b"state")
    weights, config = digest_contents(folder, "torch")
    assert (weights.name, weights.num_bytes) == ("model.safetensors", 7)
    assert weights.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert config.name == "config.json"
    assert describe_files([weights, config]) == f"model.safetensors sha256 {weights.sha256[:12]}"


def test_of_an_export_the_graphs_that_are_read_and_their_weights_are_named(tmp_path):
    onnx = make_export(tmp_path / "export", "fp32") / "fp32" / "onnx"
    for name in ("encoder_model.onnx_data", "decoder_model.onnx", "decoder_model_merged.onnx"):
        (onnx / name).write_bytes(b"more")
    names = [file.name for file in digest_contents(tmp_path / "export" / "fp32", "fp32")]
    assert names == ["onnx/decoder_model_merged.onnx", "onnx/encoder_model.onnx", "onnx/encoder_model.onnx_data"]
