"""A made-up export format needs one row of the table: export, gate, loading and the service's list read it there."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve.models.model_files import find_variants
from sottovoce.errors import CheckpointError, ConfigError, ExportGateError
from sottovoce.export.exporter import ExportConfig, ExportReport, export_checkpoint
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.variants import FORMATS, ModelFormat, default_formats, export_formats, model_bytes
from sottovoce.recognize.load import load_recognizer, root_folder

HERE = Path(__file__).stem
WEIGHTS = b"sixteen bytes..."


@dataclass(frozen=True)
class Measured:
    wer: float = 0.1
    cer: float = 0.05
    rtfx: float = 20.0
    num_utterances: int = 7


@dataclass(frozen=True)
class Echo:
    """Stands for an engine: it records the arguments of its loader."""

    folder: Path
    variant: str
    num_threads: int
    device: str

    @property
    def name(self) -> str:
        return f"echo-{self.variant}"


def write_echo(checkpoint: Checkpoint, folder: Path, *, variant: str, versions: dict[str, str]) -> None:
    """Write a model folder as CTranslate2 does: weights and vocabulary without a common name."""
    assert (folder / "tokenizer.json").is_file(), "configs and tokenizer are written before"
    assert "torch" in versions
    assert variant == "echo"
    (folder / "model").mkdir()
    (folder / "model" / "model.bin").write_bytes(WEIGHTS)
    (folder / "model" / "vocabulary.json").write_text(f'["{checkpoint.source[:0]}"]')


def load_echo(folder: Path, *, variant: str, num_threads: int, device: str) -> Echo:
    return Echo(folder, variant, num_threads, device)


@pytest.fixture(autouse=True)
def echo(monkeypatch: pytest.MonkeyPatch) -> ModelFormat:
    """Register the format ``echo``: all that a new format takes besides its own file."""
    row = ModelFormat(
        name="echo",
        files=("model/model.bin", "model/vocabulary.json"),
        devices=("cpu", "cuda"),
        loader=f"{HERE}:load_echo",
        exporter=f"{HERE}:write_echo",
    )
    monkeypatch.setitem(FORMATS, row.name, row)
    return row


def export_echo(checkpoint: Path, output: Path, *, wer: float = 0.1) -> ExportReport:
    config = ExportConfig(variants=("echo",))
    return export_checkpoint(config, checkpoint, output, score=lambda _, name: Measured(wer if name == "echo" else 0.1))


def test_a_registered_format_is_exported_loaded_and_served(tiny_checkpoint: Path, tmp_path: Path) -> None:
    report = export_echo(tiny_checkpoint, tmp_path)
    assert list(report.variants) == ["echo"]
    assert report.variants["echo"].size_bytes == model_bytes(tmp_path / "echo", "echo") == len(WEIGHTS) + len('[""]')
    assert report.fp32_max_abs_difference is None
    assert not (tmp_path / "fp32").exists()
    assert export_formats()[-3:] == ("fp32", "int8", "echo")
    assert default_formats() == ("fp32", "int8", "echo")

    recognizer = load_recognizer(tmp_path, variant="echo", num_threads=3, device="cuda")
    assert recognizer == Echo(tmp_path / "echo", "echo", 3, "cuda")
    assert root_folder(tmp_path, "echo") == tmp_path / "echo"

    found = find_variants(str(tiny_checkpoint), str(tmp_path))
    assert found.folders == {"torch": str(tiny_checkpoint), "echo": str(tmp_path / "echo")}
    assert found.default(None) == "echo"


def test_the_gate_refuses_a_registered_format(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportGateError, match=r"echo scores WER 0\.9"):
        export_echo(tiny_checkpoint, tmp_path, wer=0.9)
    with pytest.raises(CheckpointError, match="gate refused variant echo"):
        load_recognizer(tmp_path, variant="echo")
    assert list(find_variants(None, str(tmp_path)).refused) == ["echo"]


def test_needed_formats_are_written_first_and_removed_at_the_end(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echo: ModelFormat
) -> None:
    later = ModelFormat(
        name="later", files=("done",), loader=echo.loader, exporter=f"{HERE}:write_later", needs=("echo",)
    )
    monkeypatch.setitem(FORMATS, later.name, later)
    config = ExportConfig(variants=("later",))
    report = export_checkpoint(config, tiny_checkpoint, tmp_path, score=lambda _folder, _variant: Measured())
    assert list(report.variants) == ["later"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["later"]


def write_later(_checkpoint: Checkpoint, folder: Path, *, variant: str, versions: dict[str, str]) -> float:
    (folder / "done").write_bytes((folder.parent / "echo" / "model" / "model.bin").read_bytes())
    return 0.5 if versions and variant == "later" else 0.0


def test_a_device_that_the_format_does_not_run_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="variant int8 runs on cpu, not on cuda"):
        load_recognizer(tmp_path, variant="int8", device="cuda")


def test_an_unknown_variant_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValidationError, match=r"'q4' is no export format; there are .*, fp32, int8, echo"):
        ExportConfig(variants=("q4",))
    with pytest.raises(ValidationError, match="'torch' is no export format"):
        ExportConfig(variants=("torch",))
