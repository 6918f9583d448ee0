"""The table of model formats, and the layout of an export folder.

A row of ``FORMATS`` names everything that differs between formats: which files a recognizer reads, on which devices it
runs, what loads it and what writes it. The exporter, ``load_recognizer`` and the service read the table. To add an
export format, write ``export/<format>.py`` and add a row.

<export>/variants.json                 the table of all variants of one checkpoint
<export>/<variant>/                    config, generation config, tokenizer files at the root
<export>/<variant>/onnx/*.onnx         the graphs of ONNX formats, named as Transformers.js names them
<export>/<variant>/model.bin           the weights of CTranslate2 formats, with vocabulary.json
<export>/<variant>/parity.json         the largest difference from torch, where the format measures it
<export>/<variant>/record.json         scores, size and whether the variant may be served
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field, ValidationError

from sottovoce.errors import CheckpointError
from sottovoce.schema import Record

Part: TypeAlias = Literal["encoder_model", "decoder_model", "decoder_with_past_model", "decoder_model_merged"]
RunDevice: TypeAlias = Literal["cpu", "cuda"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""A setting: auto takes cuda where there is a GPU and the format runs on it."""

PARTS: tuple[Part, ...] = get_args(Part)
TORCH = "torch"
"""The format that training writes: a checkpoint or adapter folder, or a Hub id."""
VARIANT_RECORD_FILE = "record.json"
ALIGNMENT_SCORES = "alignment_scores"
"""Output (B, H, T, P) of the decoder without a cache and of the merged decoder: where the alignment heads look."""
ATTENTION_BIAS = "encoder_attention_bias"
"""Input (B, 1, 1, P) of the merged decoder of a model with trimmed contexts: minus infinity behind a window's end."""

_ONNX_FOLDER = "onnx"


@dataclass(frozen=True, kw_only=True)
class ModelFormat:
    """One format that a model is stored in."""

    name: str
    """The name of the variant in commands, requests and folders."""
    files: tuple[str, ...] = ()
    """Files or folders that a recognizer reads, relative to the variant's folder. The first one identifies the variant.
    A file of weights beside one of them, named ``<file>*``, belongs to it."""
    devices: tuple[RunDevice, ...] = ("cpu",)
    """Devices that the loader accepts."""
    loader: str
    """``module:function`` that returns a ``Recognizer``. It is called with the variant's folder (for torch, also a Hub
    id) and the keywords ``variant``, ``num_threads`` and ``device``."""
    exporter: str | None = None
    """``module:function`` that writes ``files``; None for checkpoints. It is called with a ``Checkpoint`` on the CPU in
    float32, the variant's folder, which holds configs and tokenizer files already, and the keywords ``variant`` and
    ``versions`` (of libraries, for a report). It returns the largest difference of a logit from torch's, or None if it
    measures none."""
    is_default: bool = True
    """Whether an export writes it unless told otherwise."""
    needs: tuple[str, ...] = ()
    """Formats that the exporter reads from the folders beside its own. They are written first, and removed at the end
    if nobody asked for them."""
    memory_factor: float = 1.0
    """Memory of the loaded model over the size of ``files``."""


def onnx_path(folder: Path, part: Part, variant: str) -> Path:
    """Return the path of one graph in a variant's folder: ``encoder_model.onnx`` in fp32, else with a suffix."""
    return folder / _onnx_file(part, variant)


def _onnx_file(part: Part, variant: str) -> str:
    suffix = "" if variant == "fp32" else f"_{variant}"
    return f"{_ONNX_FOLDER}/{part}{suffix}.onnx"


def onnx_format(name: str, **differing: Any) -> ModelFormat:  # noqa: ANN401 - fields of ModelFormat
    """Return the row of an ONNX format: a recognizer reads the encoder and the merged decoder on the CPU."""
    files = (_onnx_file("encoder_model", name), _onnx_file("decoder_model_merged", name))
    return ModelFormat(name=name, files=files, loader="sottovoce.recognize.onnx_engine:load_onnx", **differing)


def ctranslate2_format(precision: str, **differing: Any) -> ModelFormat:  # noqa: ANN401 - fields of ModelFormat
    """Return the row of a CTranslate2 format; its folder is one that faster-whisper reads."""
    return ModelFormat(
        name=f"ct2-{precision}",
        files=("model.bin", "vocabulary.json"),
        devices=("cpu", "cuda"),
        loader="sottovoce.recognize.ctranslate2_engine:load_ctranslate2",
        exporter="sottovoce.export.ctranslate2:write_ctranslate2",
        is_default=False,
        **differing,
    )


# Memory of ONNX Runtime over the size of its files (matrices are packed a second time): micro, 2 cores, 2026-11-21.
FORMATS: dict[str, ModelFormat] = {
    row.name: row
    for row in (
        ModelFormat(name=TORCH, devices=("cpu", "cuda"), loader="sottovoce.recognize.torch_engine:load_torch"),
        ctranslate2_format("float32"),
        ctranslate2_format("float16", memory_factor=2.0),  # a CPU computes in float32
        ctranslate2_format("int8_float16"),
        ctranslate2_format("int8"),
        onnx_format("fp32", exporter="sottovoce.export.onnx:write_fp32", memory_factor=2.5),
        onnx_format("int8", exporter="sottovoce.export.quantize:write_int8", needs=("fp32",), memory_factor=1.25),
    )
}
"""All formats. A format stands below those it needs; of equally fast ones the last is served, see
``fastest_variant``."""


def export_formats() -> tuple[str, ...]:
    """Return the names of the formats that ``export_checkpoint`` can write, in the table's order."""
    return tuple(name for name, row in FORMATS.items() if row.exporter is not None)


def default_formats() -> tuple[str, ...]:
    """Return the names of the formats that an export writes unless told otherwise."""
    return tuple(name for name in export_formats() if FORMATS[name].is_default)


def _check_exported(name: str) -> str:
    if name not in export_formats():
        raise ValueError(f"{name!r} is no export format; there are {', '.join(export_formats())}")
    return name


def _check_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"{name!r} is no variant; there are {', '.join(FORMATS)}")
    return name


Variant: TypeAlias = Annotated[str, AfterValidator(_check_exported)]
"""The name of an export format."""
ServedVariant: TypeAlias = Annotated[str, AfterValidator(_check_format)]
"""The name of an export format, or torch."""


def resolve_function(path: str) -> Callable[..., Any]:
    """Import the function that a row names as ``module:function``."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def find_folder(folder: Path, variant: str) -> Path | None:
    """Return the folder of an exported variant: below an export folder, or the folder itself; None if it is neither.

    Raises:
        CheckpointError: a record that cannot be read.
    """
    first = FORMATS[variant].files[0]
    if (folder / variant / first).exists():
        return folder / variant
    if not (folder / first).exists():
        return None
    record = read_variant_record(folder)  # several formats name their files alike
    return folder if record is None or record.variant == variant else None


def model_bytes(folder: Path, variant: str) -> int:
    """Return the size of the files a recognizer reads, files of weights beside them included.

    Args:
        folder: the variant's folder.
        variant: the name of an export format.
    """
    found = [path for name in FORMATS[variant].files for path in (folder / name).parent.glob(f"{Path(name).name}*")]
    files = {file for path in found for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()}
    return sum(file.stat().st_size for file in files)


class VariantRecord(Record):
    """The measurements of one variant after it was loaded back, and the decision of the gate."""

    variant: Variant
    wer: float
    """Fraction, on the same utterances as ``reference_wer``."""
    cer: float
    rtfx: float
    """Audio seconds per second of recognition; includes log-mel features, excludes decoding of files."""
    reference_wer: float
    """WER of the checkpoint in torch."""
    max_wer_rise: float
    """The gate's bound, absolute."""
    is_servable: bool
    """False if the gate refused the variant; no recognizer loads it then."""
    size_bytes: int = Field(ge=0)
    """The files a recognizer reads; see ``model_bytes``."""
    folder_bytes: int = Field(ge=0)
    """All files of the variant's folder."""
    num_utterances: int
    versions: dict[str, str]


def fastest_variant(records: Mapping[str, VariantRecord]) -> str | None:
    """Return the fastest variant that may be served, as measured at its export; None if there is none.

    Of equally fast ones it is the one that stands last in ``FORMATS``.
    """
    servable = [name for name in FORMATS if name in records and records[name].is_servable]
    return max(reversed(servable), key=lambda name: records[name].rtfx, default=None)


def write_variant_record(record: VariantRecord, folder: Path) -> None:
    """Write ``record.json`` of a variant."""
    (folder / VARIANT_RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_variant_record(folder: Path) -> VariantRecord | None:
    """Read ``record.json`` of a variant; None if it was never scored.

    Raises:
        CheckpointError: a file that is no such record.
    """
    path = folder / VARIANT_RECORD_FILE
    if not path.is_file():
        return None
    try:
        return VariantRecord.model_validate_json(path.read_bytes())  # bytes: bad UTF-8 is a validation error, too
    except ValidationError as error:
        raise CheckpointError(folder, f"{VARIANT_RECORD_FILE}: {error}") from error
