"""The export and the scoring job, from a manifest to their files."""

import json

import pytest
import soundfile

from jobs import export_model, score_manifest
from sottovoce.data.manifest import write_manifest
from sottovoce.errors import ExportGateError
from sottovoce.export.exporter import ExportConfig
from sottovoce.schema import Utterance
from sottovoce.scores.run import ScoreConfig


@pytest.fixture
def manifest(tmp_path, speech_like):
    rows = []
    for index, waveform in enumerate(speech_like[:4]):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, waveform, 16_000)
        rows.append(
            Utterance(id=str(index), audio=str(path), duration_s=len(waveform) / 16_000, text="one two", split="test")
        )
    write_manifest(rows, tmp_path / "manifest.jsonl")
    return tmp_path / "manifest.jsonl"


@pytest.mark.slow
def test_a_checkpoint_is_exported_scored_and_scored_again(tiny_checkpoint, manifest, tmp_path, capsys):
    job = export_model.ExportJob(
        checkpoint=str(tiny_checkpoint),
        manifest=manifest,
        output=tmp_path / "export",
        export=ExportConfig(max_wer_rise=1000.0),  # a random model's WER is a hundredfold and moves by as much
    )
    export_model.main(job)
    table = json.loads((tmp_path / "export" / "variants.json").read_text())
    assert table["variants"]["fp32"]["wer"] == table["reference_wer"]
    assert table["variants"]["int8"]["size_bytes"] < table["variants"]["fp32"]["size_bytes"] / 2
    assert (tmp_path / "export" / "export_model.yaml").is_file()

    config = ScoreConfig(
        model=str(tmp_path / "export"), variant="int8", manifest=str(manifest), decoding="greedy", num_threads=1
    )
    score_manifest.main(score_manifest.ScoreJob(score=config, output=tmp_path / "score.json"))
    assert json.loads((tmp_path / "score.json").read_text())["wer"]["rate"] == table["variants"]["int8"]["wer"]
    assert "onnx-int8: 4 utterances" in capsys.readouterr().out


@pytest.mark.slow
def test_a_refused_variant_fails_the_job_with_its_table_written(tiny_checkpoint, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(export_model, "score_folder", _worse_in_int8)
    job = export_model.ExportJob(checkpoint=str(tiny_checkpoint), manifest=manifest, output=tmp_path / "export")
    with pytest.raises(ExportGateError, match="int8"):
        export_model.main(job)
    assert not json.loads((tmp_path / "export" / "variants.json").read_text())["variants"]["int8"]["is_servable"]


class _Score:
    cer, rtfx, num_utterances = 0.0, 1.0, 4

    def __init__(self, wer):
        self.wer = wer


def _worse_in_int8(_folder, variant, **_settings):
    return _Score(0.5 if variant == "int8" else 0.1)
