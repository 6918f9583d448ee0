"""Compare the logits of an exported variant with torch's, for the same given tokens.

Shapes: B batch, M mel bins, F frames, T tokens, V vocabulary.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.variants import ALIGNMENT_SCORES, Part, Variant, onnx_path
from sottovoce.schema import FRAMES_PER_SECOND, Record

_BATCH_SIZES = (1, 3)
_PREFIX_TOKENS = 4
_STEP_TOKENS = 6
_SEED = 0
_PARITY_FILE = "parity.json"

_Arrays = dict[str, NDArray[np.float32]]


class ParityCase(Record):
    """The largest differences for one batch of random spectrograms and random tokens."""

    num_frames: int
    batch_size: int
    max_abs_difference: float
    """max |Δlogit| of the split decoders against torch: the prefix at once, then token by token with the cache."""
    max_abs_difference_merged: float
    """The same for the merged decoder."""
    max_abs_logit: float
    """The largest of torch's own logits: the scale of the differences."""


class ParityReport(Record):
    """``parity.json`` of one variant."""

    variant: Variant
    max_abs_difference: float
    """The largest of all cases, of split and merged decoders."""
    cases: tuple[ParityCase, ...]
    versions: dict[str, str]


def measure_parity(checkpoint: Checkpoint, folder: Path, variant: Variant, *, versions: dict[str, str]) -> ParityReport:
    """Compare a variant with its checkpoint at the shortest, a middle and the longest context, and write the report.

    Each context is compared with one window and with a batch of three.

    Args:
        checkpoint: float32, on the CPU.
        folder: the variant's folder; receives ``parity.json``.
        variant: which files to read.
        versions: of the libraries used, for the report.
    """
    context = checkpoint.context
    lengths_s = sorted({context.min_s, context.seconds_for((context.min_s + context.max_s) / 2), context.max_s})
    graphs = _Graphs(folder, variant)
    cases = tuple(
        _compare(checkpoint, graphs, num_frames=round(length_s * FRAMES_PER_SECOND), batch_size=batch_size)
        for length_s in lengths_s
        for batch_size in _BATCH_SIZES
    )
    worst = max(max(case.max_abs_difference, case.max_abs_difference_merged) for case in cases)
    report = ParityReport(variant=variant, max_abs_difference=worst, cases=cases, versions=versions)
    (folder / _PARITY_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def _compare(checkpoint: Checkpoint, graphs: "_Graphs", *, num_frames: int, batch_size: int) -> ParityCase:
    random = np.random.default_rng(_SEED)
    features = random.uniform(-1.0, 1.0, (batch_size, checkpoint.num_mel_bins, num_frames)).astype(np.float32)
    tokens = random.integers(0, checkpoint.tokenizer.eos_token_id, (batch_size, _PREFIX_TOKENS + _STEP_TOKENS))
    with torch.inference_mode():
        output = checkpoint.model(input_features=torch.from_numpy(features), decoder_input_ids=torch.from_numpy(tokens))
    expected: NDArray[np.float32] = output.logits.numpy()
    split, merged = graphs.split_logits(features, tokens), graphs.merged_logits(features, tokens)
    return ParityCase(
        num_frames=num_frames,
        batch_size=batch_size,
        max_abs_difference=float(np.abs(split - expected).max()),
        max_abs_difference_merged=float(np.abs(merged - expected).max()),
        max_abs_logit=float(np.abs(expected).max()),
    )


class _Graphs:
    """A variant's four graphs, run without an engine: the files are compared, not the engine's decode loop."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # else each load warns about unused outputs of the merged graph

        def load(part: Part) -> onnxruntime.InferenceSession:
            path = str(onnx_path(folder, part, variant))
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        self._encoder = load("encoder_model")
        self._decoder = load("decoder_model")
        self._with_past = load("decoder_with_past_model")
        self._merged = load("decoder_model_merged")

    def split_logits(self, features: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read the prefix with one decoder and each later token with the other; return (B, T, V)."""
        encoded = self._encoder.run(["last_hidden_state"], {"input_features": features})[0]
        inputs = {"input_ids": tokens[:, :_PREFIX_TOKENS], "encoder_hidden_states": encoded}
        outputs = _run(self._decoder, inputs)
        logits, past = [outputs.pop("logits")], outputs
        for position in range(_PREFIX_TOKENS, tokens.shape[1]):
            outputs = _run(self._with_past, {"input_ids": tokens[:, position : position + 1], **_as_past(past)})
            logits.append(outputs.pop("logits"))
            past = past | outputs
        return np.concatenate(logits, axis=1)

    def merged_logits(self, features: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read the same tokens with the merged decoder; return (B, T, V)."""
        encoded = self._encoder.run(["last_hidden_state"], {"input_features": features})[0]
        empty = {
            entry.name: np.zeros((len(features), entry.shape[1], 0, entry.shape[3]), dtype=np.float32)
            for entry in self._merged.get_inputs()
            if entry.name.startswith("past_key_values")
        }
        shared = {"encoder_hidden_states": encoded}
        prefix = {"input_ids": tokens[:, :_PREFIX_TOKENS], "use_cache_branch": np.array([False])}
        past = _run(self._merged, {**shared, **prefix, **empty})
        logits = [past.pop("logits")]
        for position in range(_PREFIX_TOKENS, tokens.shape[1]):
            step = {"input_ids": tokens[:, position : position + 1], "use_cache_branch": np.array([True])}
            outputs = _run(self._merged, {**shared, **step, **_as_past(past)})
            logits.append(outputs.pop("logits"))
            past |= {name: cache for name, cache in outputs.items() if ".decoder." in name}
        return np.concatenate(logits, axis=1)


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, NDArray[np.generic]]) -> _Arrays:
    names = [output.name for output in session.get_outputs() if output.name != ALIGNMENT_SCORES]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _as_past(present: _Arrays) -> _Arrays:
    return {name.replace("present", "past_key_values"): cache for name, cache in present.items()}
