"""Export a checkpoint: write every variant, load it back, score it and judge it."""

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
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.model.variants import (
    FORMATS,
    TORCH,
    Variant,
    VariantRecord,
    default_formats,
    export_formats,
    fastest_variant,
    model_bytes,
    resolve_function,
    write_variant_record,
)
from sottovoce.schema import Record
from sottovoce.text.scoring_table import Headline

logger = logging.getLogger(__name__)

TABLE_FILE = "variants.json"
_VERSIONED = ("onnx", "onnxruntime", "optimum", "optimum-onnx", "torch", "transformers")
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


class ExportConfig(Config):
    """Which variants are written, and how much accuracy a variant may lose."""

    variants: tuple[Variant, ...] = default_formats()
    """Formats to write, by their names in ``model/variants.py``: fp32 and int8 in ONNX; ct2-float32, ct2-float16,
    ct2-int8_float16 and ct2-int8 in CTranslate2, which faster-whisper reads, too."""
    max_wer_rise: float = Field(default=0.01, ge=0.0)
    """Largest rise of WER (CER in languages without spaces) over the checkpoint in torch, absolute: 0.01 is one
    point."""


class VariantScore(Protocol):
    """The score of a variant, as far as the exporter reads it."""

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
"""Function (folder, variant) that loads a variant and scores it on held-out speech."""


class ExportReport(Record):
    """``variants.json``: the table of an export folder."""

    checkpoint: str
    reference_wer: float
    """WER of the checkpoint in torch, a fraction."""
    reference_cer: float
    reference_rtfx: float
    """Audio seconds per second of recognition; includes log-mel features, excludes decoding of files."""
    fp32_max_abs_difference: float | None
    """max |Δlogit| of fp32 against torch; ``fp32/parity.json`` has the cases. None if fp32 was not written."""
    num_utterances: int
    fastest: Variant | None = None
    """The fastest variant that may be served, on the machine of the export: what the bare model name serves."""
    variants: dict[Variant, VariantRecord]
    versions: dict[str, str]


def export_checkpoint(
    config: ExportConfig, checkpoint: str | Path, output: Path, *, score: ScoreVariant, metric: Headline = "wer"
) -> ExportReport:
    """Export a checkpoint and judge each variant, one after the other. If one fails, those before it remain.

    All files are written before a refused variant raises, so that the report can be read. The record of a refused
    variant says so, and no recognizer loads it.

    Args:
        config: variants and bound.
        checkpoint: folder or Hub id.
        output: folder that receives one folder for each variant and ``variants.json``.
        score: loads a variant back and scores it; called with the checkpoint and ``torch`` first.
        metric: the rate that may not rise above the bound; see ``headline_metric``.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded.
        ConfigError: no variants.
        ExportGateError: a variant whose error rate rose by more than the bound.
    """
    if not config.variants:
        raise ConfigError(f"variants is empty; name some of {', '.join(export_formats())}")
    started = time.monotonic()
    loaded = load_checkpoint(checkpoint)
    versions = {name: version(name) for name in _VERSIONED}
    _remove_earlier_export(output)
    logger.info("scoring the checkpoint in torch")
    reference = score(checkpoint, TORCH)
    differences: dict[str, float | None] = {}
    decisions: list[GateDecision] = []
    records: dict[Variant, VariantRecord] = {}
    for variant in _with_needed(config.variants):
        differences[variant] = _write_variant(loaded, output / variant, variant, versions=versions)
        if variant not in config.variants:
            continue
        logger.info("scoring variant %s", variant)
        measured = score(output, variant)
        decision = _judge(variant, measured, reference, config.max_wer_rise, metric)
        decisions.append(decision)
        records[variant] = _record_variant(output / variant, decision, measured, reference, versions=versions)
    for variant in differences.keys() - records.keys():
        shutil.rmtree(output / variant)
    report = ExportReport(
        checkpoint=str(checkpoint),
        reference_wer=reference.wer,
        reference_cer=reference.cer,
        reference_rtfx=reference.rtfx,
        fp32_max_abs_difference=differences.get("fp32"),
        num_utterances=reference.num_utterances,
        fastest=fastest_variant(records),
        variants=records,
        versions=versions,
    )
    table = output / TABLE_FILE
    table.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    logger.info("exported %s to %s in %.1f s: %s", checkpoint, output, time.monotonic() - started, _summary(records))
    raise_refused(decisions, report=table)
    return report


def _remove_earlier_export(output: Path) -> None:
    """Remove all files of an earlier export, which would be mistaken for this one's."""
    (output / TABLE_FILE).unlink(missing_ok=True)
    for variant in export_formats():
        shutil.rmtree(output / variant, ignore_errors=True)


def _with_needed(wanted: tuple[Variant, ...]) -> list[str]:
    """Return the wanted formats and those they need, in the table's order: a format after those it needs."""
    pending, names = list(wanted), set[str]()
    while pending:
        name = pending.pop()
        names.add(name)
        pending += FORMATS[name].needs
    return [name for name in export_formats() if name in names]


def _write_variant(checkpoint: Checkpoint, folder: Path, variant: str, *, versions: dict[str, str]) -> float | None:
    """Write one variant's folder; return its largest difference from torch in any logit, if its exporter measures it.

    Raises:
        CheckpointError: the checkpoint lacks configs or tokenizer files.
    """
    logger.info("writing %s as %s", checkpoint.source, variant)
    _write_root_files(checkpoint, folder)
    exporter = FORMATS[variant].exporter
    assert exporter is not None, f"{variant} is no export format"
    difference: float | None = resolve_function(exporter)(checkpoint, folder, variant=variant, versions=versions)
    if difference is not None:
        logger.info("%s differs from torch by at most %.2g in any logit", variant, difference)
    return difference


def _write_root_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the configs and tokenizer files that every reader of the layout expects, and no weights."""
    save_checkpoint(checkpoint, folder)
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    missing = [name for name in _ROOT_FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(checkpoint.source, f"its tokenizer or configs lack {', '.join(missing)}")


def _judge(
    variant: str, measured: VariantScore, reference: VariantScore, bound: float, metric: Headline
) -> GateDecision:
    if metric == "cer":
        return GateDecision(variant, measured.cer, reference.cer, bound, metric)
    return GateDecision(variant, measured.wer, reference.wer, bound, metric)


def _record_variant(
    folder: Path,
    decision: GateDecision,
    measured: VariantScore,
    reference: VariantScore,
    *,
    versions: dict[str, str],
) -> VariantRecord:
    files = [path for path in folder.rglob("*") if path.is_file()]
    record = VariantRecord(
        variant=decision.variant,
        wer=measured.wer,
        cer=measured.cer,
        rtfx=measured.rtfx,
        reference_wer=reference.wer,
        max_wer_rise=decision.max_wer_rise,
        is_servable=decision.is_servable,
        size_bytes=model_bytes(folder, decision.variant),
        folder_bytes=sum(path.stat().st_size for path in files),
        num_utterances=measured.num_utterances,
        versions=versions,
    )
    write_variant_record(record, folder)
    return record


def _summary(records: dict[Variant, VariantRecord]) -> str:
    return "; ".join(
        f"{name} WER {100 * record.wer:.2f} %, CER {100 * record.cer:.2f} %, "
        f"{record.size_bytes / 1e6:.1f} MB, RTFx {record.rtfx:.1f}"
        f"{'' if record.is_servable else ', REFUSED'}"
        for name, record in records.items()
    )
