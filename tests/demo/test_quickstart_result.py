import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.demo.result import (
    Answer,
    QuickstartResult,
    VariantResult,
    describe_machine,
    fresh_folder,
    show_result,
    write_report,
    write_result,
)
from sottovoce.errors import ConfigError


def _row(step: int, wer: float) -> EvaluationRow:
    return EvaluationRow(
        step=step, epoch=step / 10, training_loss=1.5 if step else None, validation_loss=2.5, wer=wer,
        wer_low=wer - 0.05, wer_high=wer + 0.05, cer=wer / 2, seconds=float(step),
    )  # fmt: skip


ANSWERS = [Answer(reference="Take <two> daily.", transcript="Take two daily.", latency_ms=41.0)]


@pytest.fixture
def result(tmp_path: Path) -> QuickstartResult:
    return QuickstartResult(
        baseline_wer=0.9, finetuned_wer=0.18, baseline_cer=0.6, finetuned_cer=0.09, finetuned_rtfx=30.0,
        normalizer="basic", seconds=240.0, stages_s={"dictation": 18.0}, training_s=120.0,
        data_wait=0.01, num_train=440, num_test=124,
        variants={"int8": VariantResult(wer=0.185, size_bytes=15_100_000, rtfx=80.0)},
        latency_median_ms=41.0, latency_max_ms=60.0, rows=(_row(0, 0.9), _row(20, 0.2)), machine=describe_machine(),
        checkpoint="runs/c", export="runs/e", report=str(tmp_path / "report.html"), serve_command="make serve",
    )  # fmt: skip


def test_result_json_has_the_promised_keys(result: QuickstartResult, tmp_path: Path) -> None:
    write_result(result, tmp_path)
    values = json.loads((tmp_path / "result.json").read_text())
    assert values["baseline_wer"] == 0.9
    assert values["finetuned_wer"] == 0.18
    assert values["seconds"] == 240.0
    assert values["variants"]["int8"] == {"wer": 0.185, "size_bytes": 15_100_000, "rtfx": 80.0}
    assert result.wer_reduction == pytest.approx(0.8)


def test_the_report_is_one_page_with_both_curves_and_escaped_text(result: QuickstartResult, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(result, ANSWERS, path)
    page = path.read_text()
    assert page.count("<svg") == 2
    assert "Take &lt;two&gt; daily." in page
    assert "18.0 %" in page
    assert "dictation" in page
    assert "The first 1 of 124 test utterances" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )  # nothing is fetched: what is left are the SVG's own namespaces


def test_the_tables_show_every_figure(result: QuickstartResult) -> None:
    text = io.StringIO()
    show_result(result, ANSWERS, console=Console(file=text, width=100))
    for figure in ("90.0%", "18.0%", "18.5%", "15.1 MB", "41 ms", "fell by 80%", "Take two daily.", "first 1 of 124"):
        assert figure in text.getvalue()


def test_an_earlier_quickstart_is_replaced_but_nothing_else_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "quickstart"
    fresh_folder(folder)
    (folder / "old").touch()
    for name in ("corpus", "models"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    assert sorted(path.name for path in fresh_folder(folder).iterdir()) == [".quickstart", "models"]
    assert (folder / "models" / "file").exists()  # a service may run it
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="no quickstart made"):
        fresh_folder(other)
    assert (other / "thesis.txt").exists()
