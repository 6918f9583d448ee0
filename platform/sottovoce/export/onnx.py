"""The format fp32: a checkpoint exported to ONNX with Optimum.

There are four graphs: encoder, decoder, decoder with past, and both decoders merged. Every graph has a dynamic batch
axis and a dynamic time axis, so that one file runs every audio context. The decoder that reads a prefix, and with it
the merged decoder, has one more output than in Optimum's own export: see ``attention_output``. The merged decoder of a
model with trimmed contexts has one more input: see ``attention_bias``.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.onnx import export_models
from optimum.exporters.onnx.model_configs import WhisperOnnxConfig
from optimum.exporters.utils import get_encoder_decoder_models_for_export

from sottovoce.export.attention_bias import add_attention_bias
from sottovoce.export.attention_output import add_alignment_scores
from sottovoce.export.parity import measure_parity
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.onednn_linear import plain_linear
from sottovoce.model.variants import onnx_path
from sottovoce.schema import FRAMES_PER_SECOND
from sottovoce.words.cross_attention import alignment_heads

logger = logging.getLogger(__name__)

_DummyAxes = dict[str, dict[int, str]]


class TrimmedOnnxConfig(WhisperOnnxConfig):  # type: ignore[misc]
    """Whisper's graphs with a dynamic time axis, which Optimum's own configuration removes from the encoder."""

    @property
    def inputs(self) -> _DummyAxes:
        """Name the dynamic axes of each input."""
        axes: _DummyAxes = super().inputs
        if "input_features" in axes:
            axes["input_features"] = {0: "batch_size", 2: "num_frames"}
        return axes

    @property
    def outputs(self) -> _DummyAxes:
        """Name the dynamic axes of each output."""
        axes: _DummyAxes = super().outputs
        if "last_hidden_state" in axes:
            axes["last_hidden_state"] = {0: "batch_size", 1: "encoder_sequence_length"}
        return axes


def write_fp32(checkpoint: Checkpoint, folder: Path, *, variant: str, versions: dict[str, str]) -> float:
    """Write the graphs and compare them with torch: the exporter of fp32 in ``FORMATS``.

    Returns:
        The largest difference of a logit from torch's.

    Raises:
        CheckpointError: alignment heads the decoder does not have.
    """
    export_onnx(checkpoint, folder)
    return measure_parity(checkpoint, folder, variant, versions=versions).max_abs_difference


def export_onnx(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the four fp32 graphs of a checkpoint into a variant's folder.

    The model must be on the CPU in float32, as ``load_checkpoint`` returns it.

    Raises:
        CheckpointError: alignment heads the decoder does not have.
    """
    heads = alignment_heads(checkpoint.model)
    first = onnx_path(folder, "encoder_model", "fp32")
    first.parent.mkdir(parents=True, exist_ok=True)
    config = TrimmedOnnxConfig(checkpoint.model.config, task="automatic-speech-recognition", use_past=True)
    models: dict[str, Any] = get_encoder_decoder_models_for_export(checkpoint.model, config)
    names = [f"{name}.onnx" for name in models]
    traced_frames = round(checkpoint.context.max_s * FRAMES_PER_SECOND)
    with _quiet_trace(), plain_linear(checkpoint.model):
        export_models(models, first.parent, output_names=names, input_shapes={"nb_max_frames": traced_frames})
        add_alignment_scores(onnx_path(folder, "decoder_model", "fp32"), heads)
        _expect_large_merged(folder)
        # Optimum's second step stores the token embedding once, not again as output layer, and merges the decoders.
        config.post_process_exported_models(first.parent, models, names)
        if checkpoint.context.is_trimmed:
            add_attention_bias(onnx_path(folder, "decoder_model_merged", "fp32"))
    logger.info("exported %s to %s", checkpoint.source, first.parent)


def _expect_large_merged(folder: Path) -> None:
    """Have the merged decoder's weights written to a file beside it if the decoder's are: a graph holds at most 2 GB.

    Optimum 2.1 decides by whether the file of weights exists already, so an empty file is created.
    """
    decoder, merged = (onnx_path(folder, part, "fp32") for part in ("decoder_model", "decoder_model_merged"))
    if decoder.with_name(f"{decoder.name}_data").is_file():
        merged.with_name(f"{merged.name}_data").touch()


@contextmanager
def _quiet_trace() -> Iterator[None]:
    """Silence the warnings of the trace, which name branches that are constant for Whisper.

    They come from the attention and cache code of transformers 4.57; from Optimum 2.1, about tied weights that it
    shares afterwards; and from torch 2.13, about the TorchScript exporter, which Optimum still uses.
    """
    exporter_log = logging.getLogger("optimum")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        exporter_log.setLevel(level)
