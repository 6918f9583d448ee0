"""The exporter's order of work and its decisions, on graphs that are files of ten bytes."""

import json
import shutil
from dataclasses import dataclass

import pytest

from sottovoce.errors import CheckpointError, ConfigError, ExportGateError
from sottovoce.export import exporter, onnx, quantize
from sottovoce.export.exporter import ExportConfig, export_checkpoint
from sottovoce.model.variants import PARTS, onnx_path, read_variant_record
from sottovoce.recognize.load import load_recognizer


@dataclass(frozen=True)
class Measured:
    wer: float
    cer: float = 0.05
    rtfx: float = 20.0
    num_utterances: int = 7


@pytest.fixture
def empty_graphs(monkeypatch, tiny_checkpoint):
    """Write files of 10 bytes as graphs, and copy the checkpoint's own files."""

    def write(folder, variant):
        for part in PARTS:
            path = onnx_path(folder, part, variant)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"0123456789")

    class Report:
        max_abs_difference = 1e-6

    monkeypatch.setattr(
        exporter, "save_checkpoint", lambda _checkpoint, folder: shutil.copytree(tiny_checkpoint, folder)
    )
    monkeypatch.setattr(onnx, "export_onnx", lambda _checkpoint, folder: write(folder, "fp32"))
    monkeypatch.setattr(quantize, "quantize_int8", lambda _source, folder: write(folder, "int8"))
    for module in (onnx, quantize):
        monkeypatch.setattr(module, "measure_parity", lambda *_args, **_kwargs: Report())


def score_by(**wers):
    return lambda _folder, variant: Measured(wers[variant])


@pytest.mark.usefixtures("empty_graphs")
def test_every_variant_is_loaded_back_and_recorded(tiny_checkpoint, tmp_path):
    asked = []

    def score(folder, variant):
        assert variant == "torch" or onnx_path(folder / variant, "encoder_model", variant).is_file()
        asked.append((str(folder), variant))
        return Measured(0.1)

    report = export_checkpoint(ExportConfig(), tiny_checkpoint, tmp_path, score=score)
    assert asked == [(str(tiny_checkpoint), "torch"), (str(tmp_path), "fp32"), (str(tmp_path), "int8")]
    assert report.variants["int8"].size_bytes == 20
    assert report.variants["int8"] == read_variant_record(tmp_path / "int8")
    assert json.loads((tmp_path / "variants.json").read_text())["reference_wer"] == 0.1


@pytest.mark.usefixtures("empty_graphs")
def test_a_refused_variant_raises_after_all_files_were_written(tiny_checkpoint, tmp_path):
    with pytest.raises(ExportGateError, match=r"int8 scores WER 0\.1200"):
        export_checkpoint(ExportConfig(), tiny_checkpoint, tmp_path, score=score_by(torch=0.1, fp32=0.1, int8=0.12))
    table = json.loads((tmp_path / "variants.json").read_text())["variants"]
    assert (table["fp32"]["is_servable"], table["int8"]["is_servable"]) == (True, False)
    with pytest.raises(CheckpointError, match="gate refused variant int8"):
        load_recognizer(tmp_path, variant="int8")


@pytest.mark.usefixtures("empty_graphs")
def test_a_wider_bound_lets_the_same_variant_pass(tiny_checkpoint, tmp_path):
    score = score_by(torch=0.1, fp32=0.1, int8=0.12)
    report = export_checkpoint(ExportConfig(max_wer_rise=0.03), tiny_checkpoint, tmp_path, score=score)
    assert report.variants["int8"].is_servable


@pytest.mark.usefixtures("empty_graphs")
def test_records_of_an_earlier_export_are_removed(tiny_checkpoint, tmp_path):
    with pytest.raises(ExportGateError):
        export_checkpoint(ExportConfig(), tiny_checkpoint, tmp_path, score=score_by(torch=0.1, fp32=0.9, int8=0.9))

    def score(folder, variant):
        assert variant == "torch" or read_variant_record(folder / variant) is None
        return Measured(0.1)

    assert export_checkpoint(ExportConfig(), tiny_checkpoint, tmp_path, score=score).variants["fp32"].is_servable


@pytest.mark.usefixtures("empty_graphs")
def test_int8_alone_leaves_no_fp32_folder(tiny_checkpoint, tmp_path):
    score = score_by(torch=0.1, int8=0.1)
    report = export_checkpoint(ExportConfig(variants=("int8",)), tiny_checkpoint, tmp_path, score=score)
    assert list(report.variants) == ["int8"]
    assert not (tmp_path / "fp32").exists()


@pytest.mark.usefixtures("empty_graphs")
def test_a_variant_that_fails_leaves_the_records_of_those_before_it(tiny_checkpoint, tmp_path, monkeypatch):
    export_checkpoint(ExportConfig(), tiny_checkpoint, tmp_path, score=score_by(torch=0.05, fp32=0.05, int8=0.05))

    def fail(_source, _folder):
        raise MemoryError

    monkeypatch.setattr(quantize, "quantize_int8", fail)
    config = ExportConfig(variants=("int8", "fp32"))
    with pytest.raises(MemoryError):
        export_checkpoint(config, tiny_checkpoint, tmp_path, score=score_by(torch=0.1, fp32=0.1))
    record = read_variant_record(tmp_path / "fp32")
    assert record is not None
    assert record.wer == 0.1
    assert read_variant_record(tmp_path / "int8") is None
    assert not (tmp_path / "variants.json").exists(), "the table is an earlier export's"


def test_no_variants_is_a_config_error(tiny_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="variants is empty"):
        export_checkpoint(ExportConfig(variants=()), tiny_checkpoint, tmp_path, score=score_by(torch=0.1))


def test_a_tokenizer_without_its_files_is_named(tiny_checkpoint, tmp_path, monkeypatch):
    def save_nothing(_checkpoint, folder):
        folder.mkdir(parents=True)

    monkeypatch.setattr(exporter, "save_checkpoint", save_nothing)
    with pytest.raises(CheckpointError, match=r"lack config\.json"):
        export_checkpoint(ExportConfig(), tiny_checkpoint, tmp_path, score=score_by(torch=0.1))
