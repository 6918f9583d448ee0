"""The ONNX Runtime engine: it runs the encoder and the merged decoder of an exported variant.

The merged decoder is used instead of the two split ones: the same speed and memory, half the bytes to ship (measured on
a 4-layer decoder of width 384, 1 thread of a Xeon with AVX-512: 5.9 ms a step, 393 MB against 416 MB). The encoder's
keys and values are computed and bound once; a step passes their buffers on without a copy.

Shapes: B batch, M mel bins, F frames, T tokens, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,  # noqa: A004 - ONNX Runtime's own name
    RuntimeException,
)

from sottovoce.errors import CheckpointError, WordTimesUnavailableError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.labels import TokenKinds
from sottovoce.model.source import read_config, read_generation_config
from sottovoce.model.tokenizer import read_tokenizer
from sottovoce.model.variants import ALIGNMENT_SCORES, ATTENTION_BIAS, RunDevice, onnx_path
from sottovoce.model.vocabulary import Vocabulary, build_vocabulary
from sottovoce.recognize.batching import EncoderInput, StepwiseBatch, decode_windows
from sottovoce.recognize.decoding.session import Logits, TokenIds
from sottovoce.recognize.encoded_windows import EncodedWindows, encode_windows, take_rows
from sottovoce.recognize.longform.transcribe import transcribe
from sottovoce.recognize.steps import BatchDecoding, finish
from sottovoce.schema import DecodeOptions, LogMel, Waveform, WindowResult

_PAST, _PRESENT = "past_key_values", "present"
# The graph outputs logits of every token it reads, 0.2 MB each: a batch of 16 long prompts would take 0.75 GB at once.
_PREFIX_TOKENS_AT_ONCE = 1_024
ONNX_ERRORS = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented, RuntimeException)
"""What ONNX Runtime raises for a file that is missing or damaged."""


class OnnxRecognizer:
    """Decode with an exported variant on CPU cores."""

    transcribe = transcribe

    def __init__(
        self,
        *,
        encoder: onnxruntime.InferenceSession,
        decoder: onnxruntime.InferenceSession,
        vocabulary: Vocabulary,
        context: AudioContext,
        variant: str,
        max_batch_size: int = 16,
    ) -> None:
        """Wrap loaded sessions; ``load_onnx`` loads them from a folder."""
        self._encoder = encoder
        self._decoder = decoder
        self._vocabulary = vocabulary
        self._variant = variant
        self._input = EncoderInput(
            context=context,
            num_mel_bins=int(encoder.get_inputs()[0].shape[1]),
            mixes_contexts=ATTENTION_BIAS in {entry.name for entry in decoder.get_overridable_initializers()},
        )
        self._max_batch_size = max_batch_size

    @property
    def name(self) -> str:
        """Engine and variant, as in ``onnx-int8``."""
        return f"onnx-{self._variant}"

    @property
    def context(self) -> AudioContext:
        """The audio contexts the model was trained on."""
        return self._input.context

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the model knows."""
        return self._vocabulary.languages

    def recognize(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode windows; see ``Recognizer``.

        Raises:
            ContextError: a window longer than the longest context.
            LanguageError: a language the model does not know.
            WordTimesUnavailableError: word times from graphs that were exported without alignment scores.
        """
        return finish(self.decode_in_steps(windows, options), num_windows=len(windows))

    def decode_in_steps(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[BatchDecoding]:
        """Prepare to decode windows in steps; see ``Recognizer``."""
        return decode_windows(
            self._open,
            windows,
            options,
            vocabulary=self._vocabulary,
            encoder_input=self._input,
            max_batch_size=self._max_batch_size,
        )

    def _open(self, spectrograms: Sequence[LogMel]) -> StepwiseBatch:
        return StepwiseBatch(self._open_session(spectrograms), self._vocabulary, num_windows=len(spectrograms))

    def _open_session(self, spectrograms: Sequence[LogMel]) -> "_OnnxSession":
        encoded = encode_windows(self._encoder, spectrograms, mixes_contexts=self._input.mixes_contexts)
        return _OnnxSession(self._decoder, encoded, engine=self.name)


def load_onnx(folder: Path, *, variant: str, num_threads: int, device: RunDevice) -> OnnxRecognizer:
    """Load an exported variant: the loader of the ONNX formats in ``FORMATS``.

    Args:
        folder: the variant's folder.
        variant: which graphs to read.
        num_threads: CPU threads that one call may use.
        device: ``cpu``, the only one these formats support.

    Raises:
        CheckpointError: a file that is missing or damaged.
    """
    config, generation = read_config(folder), read_generation_config(folder)
    tokenizer = read_tokenizer(folder)
    return OnnxRecognizer(
        encoder=load_session(onnx_path(folder, "encoder_model", variant), num_threads=num_threads),
        decoder=load_session(onnx_path(folder, "decoder_model_merged", variant), num_threads=num_threads),
        vocabulary=build_vocabulary(tokenizer, generation, source=str(folder)),
        context=AudioContext.read(config),
        variant=variant,
    )


def load_session(path: Path, *, num_threads: int) -> onnxruntime.InferenceSession:
    """Load one graph for CPU cores.

    Args:
        path: the ONNX file.
        num_threads: CPU threads that one call may use; ONNX Runtime ignores OMP_NUM_THREADS.

    Raises:
        CheckpointError: a file that is missing or damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle replicas share their cores
    # Exact sums of int8 weights beyond 64, in exports of earlier releases, on processors without VNNI. Their products
    # are then a quarter slower (AMD EPYC with AVX2, 2026-11-30); other weights are not affected.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3  # errors only: each load warns about unused outputs of the merged graph
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ONNX_ERRORS as error:
        raise CheckpointError(path, f"{error}") from error


class _OnnxSession:
    """One batch: the encoder's output and the decoder's cache, in buffers owned by ONNX Runtime."""

    def __init__(self, decoder: onnxruntime.InferenceSession, encoded: EncodedWindows, *, engine: str) -> None:
        self._decoder = decoder
        self._engine = engine
        self._encoded = encoded
        outputs = [output.name for output in decoder.get_outputs()]
        self._self_names = [name.removeprefix(_PRESENT) for name in outputs if ".decoder." in name]
        self._cross_names = [name.removeprefix(_PRESENT) for name in outputs if ".encoder." in name]
        self._has_scores = ALIGNMENT_SCORES in outputs
        self._flags = {flag: np.array([flag]) for flag in (False, True)}  # a binding does not keep its arrays alive
        self._step: Any = None
        self._encoded_of_rows = encoded  # a binding does not keep it alive either
        self._caches: dict[str, onnxruntime.OrtValue] = {}
        self._windows = np.zeros(0, dtype=np.int64)  # the window of each row

    def start(self, prefix: TokenIds, positions: Sequence[int] | None = None) -> Logits:
        """Read a prefix (B, T) with an empty cache and return (B, P, V); see ``DecoderSession``."""
        self._step = self._bind(use_cache=True)
        self._windows = np.arange(len(prefix))
        size = max(1, _PREFIX_TOKENS_AT_ONCE // prefix.shape[1])
        if len(prefix) > size:
            return self._start_in_parts(prefix, positions, size=size)
        first = self._bind(use_cache=False)
        empty_caches = self._empty_caches(batch_size=len(prefix))
        for name, empty in empty_caches.items():
            first.bind_ortvalue_input(name, empty)
        logits, caches = self._run(first, prefix, [*self._self_names, *self._cross_names])
        self._continue_from(caches)
        return logits if positions is None else logits[:, list(positions)]

    def _start_in_parts(self, prefix: TokenIds, positions: Sequence[int] | None, *, size: int) -> Logits:
        """Read the prefix of ``size`` windows at a time, and join their caches."""
        spans = [range(first, min(first + size, len(prefix))) for first in range(0, len(prefix), size)]
        parts = [self.select(span) for span in spans]
        logits = [
            part.start(prefix[span.start : span.stop], positions) for part, span in zip(parts, spans, strict=True)
        ]
        self._continue_from({name: _join([part._caches[name] for part in parts]) for name in parts[0]._caches})
        return np.concatenate(logits)

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each row, (R,), and return (R, V)."""
        logits, caches = self._run(self._step, token_ids[:, None], self._self_names)
        self._continue_from(caches)
        last: Logits = logits[:, -1]
        return last

    def reorder(self, rows: Sequence[int]) -> None:
        """Continue from these rows. Cross-attention's cache moves only if a row belongs to another window."""
        windows = self._windows[list(rows)]
        names = list(self._self_names)
        if not np.array_equal(windows, self._windows):
            names += self._cross_names
            self._encoded_of_rows = self._encoded.take(windows)
            _bind_windows(self._step, self._encoded_of_rows)
        self._windows = windows
        self._continue_from({name: take_rows(self._caches[name], rows) for name in names})

    def select(self, rows: Sequence[int]) -> "_OnnxSession":
        """Return a session of some of the windows."""
        return _OnnxSession(self._decoder, self._encoded.take(rows), engine=self._engine)

    def attend(
        self, row: int, token_ids: list[int], kinds: TokenKinds
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read given tokens for one window; see ``AttentionSource``.

        Raises:
            WordTimesUnavailableError: graphs that were exported without this output.
        """
        if not self._has_scores:
            raise WordTimesUnavailableError(self._engine)
        return read_attention(
            self._decoder,
            self._encoded.window(row),
            self._empty_caches(batch_size=1),
            np.array(token_ids, dtype=np.int64),
            kinds,
        )

    def _continue_from(self, caches: Mapping[str, onnxruntime.OrtValue]) -> None:
        for name, cache in caches.items():
            self._step.bind_ortvalue_input(_PAST + name, cache)
            self._caches[name] = cache  # a binding does not keep its arrays alive

    def _bind(self, *, use_cache: bool) -> Any:  # noqa: ANN401 - onnxruntime has no types
        binding = self._decoder.io_binding()
        _bind_windows(binding, self._encoded)
        binding.bind_cpu_input("use_cache_branch", self._flags[use_cache])
        return binding

    def _run(
        self,
        binding: Any,  # noqa: ANN401 - onnxruntime has no types
        token_ids: TokenIds,
        cache_names: Sequence[str],
    ) -> tuple[Logits, dict[str, onnxruntime.OrtValue]]:
        """Run the decoder; return logits and the named caches, as buffers without a copy."""
        held_ids = np.ascontiguousarray(token_ids)  # a binding does not keep its arrays alive
        binding.bind_cpu_input("input_ids", held_ids)
        binding.clear_binding_outputs()
        for name in ("logits", *(_PRESENT + name for name in cache_names)):
            binding.bind_output(name)
        self._decoder.run_with_iobinding(binding)
        logits, *caches = binding.get_outputs()
        return logits.numpy(), dict(zip(cache_names, caches, strict=True))

    def _empty_caches(self, *, batch_size: int) -> dict[str, onnxruntime.OrtValue]:
        """Return caches of no tokens: the branch of the first step ignores them, but the graph requires them."""
        caches = [entry for entry in self._decoder.get_inputs() if entry.name.startswith(_PAST)]
        return {
            entry.name: onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros((batch_size, entry.shape[1], 0, entry.shape[3]), dtype=np.float32)
            )
            for entry in caches
        }


def _bind_windows(binding: Any, encoded: EncodedWindows) -> None:  # noqa: ANN401 - onnxruntime has no types
    """Let the decoder read these windows."""
    binding.bind_ortvalue_input("encoder_hidden_states", encoded.states)
    if encoded.bias is not None:
        binding.bind_ortvalue_input(ATTENTION_BIAS, encoded.bias)


def _join(values: Sequence[onnxruntime.OrtValue]) -> onnxruntime.OrtValue:
    """Concatenate buffers along the rows."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.concatenate([value.numpy() for value in values]))


def read_attention(
    decoder: onnxruntime.InferenceSession,
    encoded: NDArray[np.float32],
    empty_caches: Mapping[str, onnxruntime.OrtValue],
    token_ids: NDArray[np.int64],
    kinds: TokenKinds,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read prefix, text and end token of one window in one pass.

    Args:
        decoder: the merged decoder, exported with its alignment scores.
        encoded: (1, P, D) from the encoder.
        empty_caches: for a batch of one; the branch without a cache ignores them, but the graph requires them.
        token_ids: (T,), the last one the end token.
        kinds: which ids are text.

    Returns:
        Scores (H, T, P), and the probabilities (T - 1,) of the tokens from the second on, normalized over text tokens;
        0 for tokens that are no text.
    """
    inputs = {
        "input_ids": onnxruntime.OrtValue.ortvalue_from_numpy(token_ids[None]),
        "encoder_hidden_states": onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(encoded)),
        "use_cache_branch": onnxruntime.OrtValue.ortvalue_from_numpy(np.array([False])),
    }
    outputs = decoder.run_with_ort_values(["logits", ALIGNMENT_SCORES], {**inputs, **empty_caches})
    logits, scores = (output.numpy()[0] for output in outputs)
    return scores, text_probabilities(logits[:-1], token_ids[1:], kinds)


def text_probabilities(
    logits: NDArray[np.float32], token_ids: NDArray[np.int64], kinds: TokenKinds
) -> NDArray[np.float32]:
    """Return the probability of each token, normalized over text tokens.

    Args:
        logits: (T, V) from which each token was generated.
        token_ids: (T,).
        kinds: which ids are text.

    Returns:
        (T,), 0 for tokens that are no text.
    """
    is_text = kinds.are_text(token_ids)
    probabilities = np.zeros(len(token_ids), dtype=np.float32)
    among = logits[is_text]
    among[:, kinds.end_id : kinds.timestamps_to] = -np.inf
    chosen = among[np.arange(len(among)), token_ids[is_text]]
    peaks = among.max(axis=1, initial=-np.inf)
    np.subtract(among, peaks[:, None], out=among)
    np.exp(among, out=among)
    probabilities[is_text] = np.exp(chosen - peaks) / among.sum(axis=1)
    return probabilities
