"""The layout of an export folder, which its writer and its readers share.

<export>/variants.json                 the table of all variants
<export>/<variant>/                    config, generation config, tokenizer files at the root
<export>/<variant>/onnx/*.onnx         named as Transformers.js names them
<export>/<variant>/parity.json         largest difference from torch
<export>/<variant>/record.json         scores, size and whether the variant may be served
"""

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import Field, ValidationError

from sottovoce.errors import CheckpointError
from sottovoce.schema import Record

Variant: TypeAlias = Literal["fp32", "int8"]
Part: TypeAlias = Literal["encoder_model", "decoder_model", "decoder_with_past_model", "decoder_model_merged"]

VARIANTS: tuple[Variant, ...] = get_args(Variant)
PARTS: tuple[Part, ...] = get_args(Part)

_SUFFIXES: dict[Variant, str] = {"fp32": "", "int8": "_int8"}
_ONNX_FOLDER = "onnx"
VARIANT_RECORD_FILE = "record.json"
ALIGNMENT_SCORES = "alignment_scores"
"""Output (B, H, T, P) of the decoder without a cache, and of the merged one: where its alignment heads look."""


class VariantRecord(Record):
    """What was measured on one variant after it was loaded back, and what the gate decided."""

    variant: Variant
    wer: float
    """Fraction, on the same utterances as ``reference_wer``."""
    cer: float
    rtfx: float
    """Audio seconds per second of recognition, log-mel included, decoding of files excluded."""
    reference_wer: float
    """WER of the checkpoint in torch."""
    max_wer_rise: float
    """The gate's bound, absolute."""
    is_servable: bool
    """False where the gate refused the variant; no recognizer loads it then."""
    size_bytes: int = Field(ge=0)
    """The ONNX files a recognizer reads: encoder and merged decoder."""
    folder_bytes: int = Field(ge=0)
    """Every file of the variant's folder."""
    num_utterances: int
    versions: dict[str, str]


def onnx_path(folder: Path, part: Part, variant: Variant) -> Path:
    """Give the path of one graph in a variant's folder."""
    return folder / _ONNX_FOLDER / f"{part}{_SUFFIXES[variant]}.onnx"


def write_variant_record(record: VariantRecord, folder: Path) -> None:
    """Write a variant's ``record.json``."""
    (folder / VARIANT_RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_variant_record(folder: Path) -> VariantRecord | None:
    """Read a variant's ``record.json``; None where it was never scored.

    Raises:
        CheckpointError: a file that is no such record.
    """
    path = folder / VARIANT_RECORD_FILE
    if not path.is_file():
        return None
    try:
        return VariantRecord.model_validate_json(path.read_bytes())  # bytes: it tells of bad UTF-8 as of all else
    except ValidationError as error:
        raise CheckpointError(folder, f"{VARIANT_RECORD_FILE}: {error}") from error
