"""A checkpoint to an export folder: every variant written, compared with torch, loaded back, scored and judged."""

import logging
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from pydantic import Field

from sottovoce.config import Config
from sottovoce.errors import CheckpointError, ConfigError
from sottovoce.export.gate import GateDecision, raise_refused
from sottovoce.export.onnx import export_onnx
from sottovoce.export.parity import measure_parity
from sottovoce.export.quantize import quantize_int8
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.model.variants import VARIANTS, Part, Variant, VariantRecord, onnx_path, write_variant_record
from sottovoce.schema import Record

logger = logging.getLogger(__name__)

_READ_PARTS: tuple[Part, ...] = ("encoder_model", "decoder_model_merged")
_PARITY_BATCH_SIZES = (1, 3)
_VERSIONED = ("onnx", "onnxruntime", "optimum", "optimum-onnx", "torch", "transformers")
TABLE_FILE = "variants.json"


class ExportConfig(Config):
    """Which variants are made, and how much accuracy one may lose."""

    variants: tuple[Variant, ...] = VARIANTS
    """Precisions to write; int8 needs fp32, which is made all the same."""
    max_wer_rise: float = Field(default=0.01, ge=0.0)
    """Largest rise of WER over the checkpoint in torch, absolute: 0.01 is one point."""


class VariantScore(Protocol):
    """What the exporter needs of a score."""

    @property
    def wer(self) -> float:
        """Word error rate, a fraction."""

    @property
    def cer(self) -> float:
        """Character error rate, a fraction."""

    @property
    def rtfx(self) -> float:
        """Audio seconds per second of recognition."""

    @property
    def num_utterances(self) -> int:
        """Utterances scored."""


ScoreVariant = Callable[[str | Path, str], VariantScore]
"""Load the variant named second from the folder named first, and score it on held-out speech."""


class ExportReport(Record):
    """``variants.json``: the table of an export folder."""

    checkpoint: str
    reference_wer: float
    """WER of the checkpoint in torch, a fraction."""
    reference_cer: float
    reference_rtfx: float
    """Audio seconds per second of recognition, log-mel included, decoding of files excluded."""
    fp32_max_abs_difference: float
    """max |Δlogit| of fp32 against torch; ``fp32/parity.json`` has the cases."""
    num_utterances: int
    variants: dict[Variant, VariantRecord]
    versions: dict[str, str]


def export_checkpoint(
    config: ExportConfig, checkpoint: str | Path, output: Path, *, score: ScoreVariant
) -> ExportReport:
    """Export a checkpoint and judge each variant, one after the other: where one cannot be made, those before it stand.

    Everything is written before a refused variant raises, so that the report can be read; a refused variant's record
    says so, and no recognizer loads it.

    Args:
        config: variants and bound.
        checkpoint: folder or Hub id.
        output: folder that receives one folder for each variant and ``variants.json``.
        score: loads a variant back and scores it; called with the checkpoint and ``torch`` first.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
        ConfigError: no variants.
        ExportGateError: a variant whose WER rose by more than the bound.
    """
    if not config.variants:
        raise ConfigError(f"variants is empty; name some of {', '.join(VARIANTS)}")
    started = time.monotonic()
    loaded = load_checkpoint(checkpoint)
    versions = {name: version(name) for name in _VERSIONED}
    _forget_export(output)
    difference = _write_fp32(loaded, output / "fp32", versions=versions)
    logger.info("scoring the checkpoint in torch")
    reference = score(checkpoint, "torch")
    decisions: list[GateDecision] = []
    records: dict[Variant, VariantRecord] = {}
    for variant in (variant for variant in VARIANTS if variant in config.variants):
        if variant == "int8":
            _write_int8(loaded, output, versions=versions)
        logger.info("scoring variant %s", variant)
        measured = score(output, variant)
        decision = GateDecision(variant, measured.wer, reference.wer, config.max_wer_rise)
        decisions.append(decision)
        records[variant] = _record_variant(output / variant, decision, measured, versions=versions)
    if "fp32" not in records:
        shutil.rmtree(output / "fp32")
    report = ExportReport(
        checkpoint=str(checkpoint),
        reference_wer=reference.wer,
        reference_cer=reference.cer,
        reference_rtfx=reference.rtfx,
        fp32_max_abs_difference=difference,
        num_utterances=reference.num_utterances,
        variants=records,
        versions=versions,
    )
    table = output / TABLE_FILE
    table.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    logger.info("exported %s to %s in %.1f s: %s", checkpoint, output, time.monotonic() - started, _summary(records))
    raise_refused(decisions, report=table)
    return report


def _forget_export(output: Path) -> None:
    """Leave nothing of an earlier export that could be taken for this one's."""
    (output / TABLE_FILE).unlink(missing_ok=True)
    for variant in VARIANTS:
        shutil.rmtree(output / variant, ignore_errors=True)


def _write_fp32(checkpoint: Checkpoint, folder: Path, *, versions: dict[str, str]) -> float:
    """Trace the graphs; give their largest difference from torch."""
    logger.info("tracing the graphs of %s", checkpoint.source)
    _write_root_files(checkpoint, folder)
    export_onnx(checkpoint, folder)
    report = measure_parity(checkpoint, folder, "fp32", batch_sizes=_PARITY_BATCH_SIZES, versions=versions)
    logger.info("fp32 differs from torch by at most %.2g in any logit", report.max_abs_difference)
    return report.max_abs_difference


def _write_int8(checkpoint: Checkpoint, output: Path, *, versions: dict[str, str]) -> None:
    """Quantize the graphs of fp32."""
    logger.info("quantizing to int8")
    _write_root_files(checkpoint, output / "int8")
    quantize_int8(output / "fp32", output / "int8")
    measure_parity(checkpoint, output / "int8", "int8", batch_sizes=_PARITY_BATCH_SIZES, versions=versions)


def _write_root_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the configs and tokenizer files that every reader of the layout expects; the weights are in the graphs."""
    save_checkpoint(checkpoint, folder)
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    missing = [name for name in _ROOT_FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(checkpoint.source, f"its tokenizer or configs lack {', '.join(missing)}")


_ROOT_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)


def _record_variant(
    folder: Path, decision: GateDecision, measured: VariantScore, *, versions: dict[str, str]
) -> VariantRecord:
    files = [path for path in folder.rglob("*") if path.is_file()]
    record = VariantRecord(
        variant=decision.variant,
        wer=decision.wer,
        cer=measured.cer,
        rtfx=measured.rtfx,
        reference_wer=decision.reference_wer,
        max_wer_rise=decision.max_wer_rise,
        is_servable=decision.is_servable,
        size_bytes=sum(_graph_bytes(onnx_path(folder, part, decision.variant)) for part in _READ_PARTS),
        folder_bytes=sum(path.stat().st_size for path in files),
        num_utterances=measured.num_utterances,
        versions=versions,
    )
    write_variant_record(record, folder)
    return record


def _graph_bytes(path: Path) -> int:
    """Size a graph, with the file of weights that stands beside one above 2 GB."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def _summary(records: dict[Variant, VariantRecord]) -> str:
    return "; ".join(
        f"{name} WER {100 * record.wer:.2f} %, {record.size_bytes / 1e6:.1f} MB, RTFx {record.rtfx:.1f}"
        f"{'' if record.is_servable else ', REFUSED'}"
        for name, record in records.items()
    )
