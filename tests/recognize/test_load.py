import shutil

import pytest

from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.model.variants import onnx_path, read_variant_record, write_variant_record
from sottovoce.recognize.load import load_recognizer


@pytest.fixture
def int8_folder(tiny_export, tmp_path):
    """A copy of one variant's folder, to damage."""
    return shutil.copytree(tiny_export / "int8", tmp_path / "int8")


def test_a_variants_own_folder_loads_like_the_export_folder(tiny_export):
    assert load_recognizer(tiny_export / "fp32", variant="fp32").name == "onnx-fp32"
    assert load_recognizer(str(tiny_export), variant="fp32").name == "onnx-fp32"


def test_an_unknown_variant_is_named_with_those_there_are(tiny_export):
    with pytest.raises(CheckpointError, match=r"'q4' is none of torch, .*, fp32, int8"):
        load_recognizer(tiny_export, variant="q4")


def test_a_missing_variant_names_the_file_that_is_missing(tiny_checkpoint):
    with pytest.raises(CheckpointError, match=r"encoder_model_int8\.onnx is missing"):
        load_recognizer(tiny_checkpoint, variant="int8")


def test_an_export_folder_is_no_checkpoint(tiny_export):
    with pytest.raises(CheckpointError, match="cannot use the model"):
        load_recognizer(tiny_export)


def test_a_missing_decoder_is_named(int8_folder):
    onnx_path(int8_folder, "decoder_model_merged", "int8").unlink()
    with pytest.raises(CheckpointError, match="decoder_model_merged_int8"):
        load_recognizer(int8_folder, variant="int8")


@pytest.mark.parametrize("content", [b"", b"no graph", None])
def test_a_damaged_graph_raises_checkpoint_error(int8_folder, content):
    path = onnx_path(int8_folder, "encoder_model", "int8")
    path.write_bytes(path.read_bytes()[:1_000] if content is None else content)
    with pytest.raises(CheckpointError, match="encoder_model_int8"):
        load_recognizer(int8_folder, variant="int8")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_a_missing_root_file_raises_checkpoint_error(int8_folder, name):
    (int8_folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_recognizer(int8_folder, variant="int8")


def test_a_generation_config_without_languages_is_refused(int8_folder):
    (int8_folder / "generation_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lang_to_id"):
        load_recognizer(int8_folder, variant="int8")


def test_a_variant_the_gate_refused_is_not_loaded(int8_folder):
    record = read_variant_record(int8_folder)
    write_variant_record(record.model_copy(update={"is_servable": False, "wer": 0.5}), int8_folder)
    with pytest.raises(CheckpointError, match=r"gate refused variant int8: WER 0\.5000 against 0\.1000"):
        load_recognizer(int8_folder, variant="int8")


def test_a_variant_that_was_never_scored_loads(int8_folder):
    (int8_folder / "record.json").unlink()
    assert load_recognizer(int8_folder, variant="int8").name == "onnx-int8"


def test_a_damaged_record_raises_checkpoint_error(int8_folder):
    (int8_folder / "record.json").write_text('{"is_servable": true}')
    with pytest.raises(CheckpointError, match=r"record\.json"):
        load_recognizer(int8_folder, variant="int8")


def test_auto_takes_a_gpu_only_for_formats_that_run_on_one(tiny_export, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert load_recognizer(tiny_export, variant="int8", device="auto").name == "onnx-int8"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load_recognizer(tiny_export, variant="int8").name == "onnx-int8"


def test_a_device_the_format_does_not_run_on_is_refused_with_those_that_do(tiny_export):
    with pytest.raises(ConfigError, match=r"variant int8 runs on cpu, not on cuda; on cuda run torch, ct2-"):
        load_recognizer(tiny_export, variant="int8", device="cuda")


def test_a_gpu_that_is_not_there_is_refused(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch finds no CUDA device; use device cpu"):
        load_recognizer(tiny_checkpoint, device="cuda")
