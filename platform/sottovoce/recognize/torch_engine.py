"""The torch engine: a checkpoint decodes in the process that holds it, on a CPU or a GPU.

Shapes: B batch, M mel bins, F frames, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache

from sottovoce.errors import ConfigError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.context import TrimmedWhisper
from sottovoce.model.labels import TokenKinds
from sottovoce.model.variants import TORCH, RunDevice
from sottovoce.model.vocabulary import build_vocabulary
from sottovoce.recognize.batching import EncoderInput, StepwiseBatch, WindowSession, decode_windows
from sottovoce.recognize.decoding.batch import decode_batch
from sottovoce.recognize.decoding.session import Logits, TokenIds
from sottovoce.recognize.decoding.stepwise import StepwiseDecoder
from sottovoce.recognize.longform.transcribe import transcribe
from sottovoce.recognize.speculative import SpeculativeSession, check_assistant
from sottovoce.recognize.steps import BatchDecoding, finish, in_order, steps_within
from sottovoce.schema import POSITIONS_PER_SECOND, DecodeOptions, LogMel, Waveform, WindowResult
from sottovoce.words.cross_attention import alignment_heads, attend


class TorchRecognizer:
    """Decode with a checkpoint's model on its present device and in its present precision.

    The model is never changed, so a training worker can evaluate the model it trains.
    """

    transcribe = transcribe

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_threads: int | None = None,
        autocast: torch.dtype | None = None,
        max_batch_size: int = 16,
        assistant: Checkpoint | None = None,
    ) -> None:
        """Wrap a checkpoint.

        Args:
            checkpoint: the model with its tokenizer.
            num_threads: torch threads during a call, restored after it; None keeps the process's setting.
            autocast: precision of the computation while the weights stay float32, as in mixed-precision training.
            max_batch_size: windows per batch.
            assistant: a smaller model that drafts tokens, on the same device and in the same precision; see
                ``speculative``.

        Raises:
            CheckpointError: a generation config without languages, or an assistant that does not fit the model.
        """
        if assistant is not None:
            check_assistant(checkpoint, assistant)
        self._assistant = None if assistant is None else assistant.model
        self._shares_encoder = assistant is not None and have_same_encoder(checkpoint.model, assistant.model)
        self._model = checkpoint.model
        self._num_mel_bins = checkpoint.num_mel_bins
        self._vocabulary = build_vocabulary(
            checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source=checkpoint.source
        )
        self._num_threads = num_threads
        self._autocast = autocast
        self._max_batch_size = max_batch_size

    @property
    def name(self) -> str:
        """``torch``."""
        return TORCH

    @property
    def context(self) -> AudioContext:
        """The audio contexts the model was trained on."""
        return self._model.audio_context

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the model knows."""
        return self._vocabulary.languages

    def recognize(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode windows; see ``Recognizer``.

        Raises:
            ContextError: a window longer than the longest context.
            LanguageError: a language the model does not know.
            CheckpointError: word times with alignment heads that the decoder does not have.
        """
        with self._inference():
            return finish(self._decode(windows, options), num_windows=len(windows))

    def decode_in_steps(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[BatchDecoding]:
        """Prepare to decode windows in steps; see ``Recognizer``."""
        return [steps_within(self._inference, decoding) for decoding in self._decode(windows, options)]

    def _decode(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[BatchDecoding]:
        return decode_windows(
            self._open,
            windows,
            options,
            vocabulary=self._vocabulary,
            encoder_input=EncoderInput(context=self.context, num_mel_bins=self._num_mel_bins),
            max_batch_size=self._max_batch_size,
        )

    def encode(self, input_features: torch.Tensor) -> torch.Tensor:
        """Run the encoder alone: (B, M, F) to (B, P, D). ``recognize_encoded`` and a loss can share the result."""
        with self._inference():
            return _encode(self._model, input_features)

    def recognize_encoded(self, encoded: torch.Tensor, options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode the output of ``encode`` as ``recognize`` would.

        Args:
            encoded: (B, P, D) windows of one context.
            options: B, equal in ``timestamps`` and without prompts. Words are not timed, which would need the audio.

        Raises:
            LanguageError: a language the model does not know.
        """
        with self._inference():
            steps = decode_batch(
                StepwiseDecoder(_TorchSession(self._model, encoded), self._vocabulary, num_windows=len(options)),
                options,
                vocabulary=self._vocabulary,
                durations_s=[encoded.shape[1] / POSITIONS_PER_SECOND] * len(options),
                max_rows=max(self._max_batch_size, len(options)),
            )
            return in_order(steps, length=len(options))

    def choose_greedily(self, logits: torch.Tensor, *, is_first: torch.Tensor) -> torch.Tensor:
        """Choose tokens as greedy decoding without timestamps does, from logits of all positions at once.

        Args:
            logits: (N, V), each of the token after a prefix and some text. Changed in place: -inf for tokens that the
                rules forbid.
            is_first: (N,) true where there is no text yet.

        Returns:
            (N,) token ids.
        """
        later, first = (
            torch.from_numpy(self._vocabulary.penalties(logits.shape[1], timestamps=False, first=first)).to(logits)
            for first in (False, True)
        )
        logits[is_first] += first
        logits += later
        return logits.argmax(dim=1)

    def text(self, token_ids: Sequence[int]) -> str:
        """Decode tokens into text, as in a result."""
        return self._vocabulary.text(tuple(token_ids))

    def _open(self, spectrograms: Sequence[LogMel]) -> StepwiseBatch:
        session = self._open_session(torch.from_numpy(np.stack(spectrograms)))
        return StepwiseBatch(session, self._vocabulary, num_windows=len(spectrograms))

    def _open_session(self, features: torch.Tensor) -> WindowSession:
        session = _TorchSession(self._model, self.encode(features))
        assistant = self._assistant
        if assistant is None:
            return session

        @cache
        def open_assistant() -> _TorchSession:
            return _TorchSession(assistant, session.encoded if self._shares_encoder else _encode(assistant, features))

        return SpeculativeSession(session, open_assistant, vocabulary=self._vocabulary)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Compute without gradients and dropout, in this engine's precision and with its threads."""
        with (
            torch.inference_mode(),
            torch.autocast(self._model.device.type, dtype=self._autocast, enabled=self._autocast is not None),
            _evaluating(self._model),
            _threads(self._num_threads),
        ):
            yield


def load_torch(
    folder: str | Path,
    *,
    variant: str = TORCH,
    num_threads: int,
    device: RunDevice,
    dtype: torch.dtype | None = None,
    assistant: str | Path | None = None,
) -> TorchRecognizer:
    """Load a checkpoint: the loader of the torch format in ``FORMATS``.

    Args:
        folder: a checkpoint folder or a Hub id.
        variant: ``torch``.
        num_threads: CPU threads that one call may use.
        device: where the model runs.
        dtype: of its weights; the default is float16 on a GPU, float32 on a CPU.
        assistant: a smaller checkpoint that drafts tokens; see ``speculative``.

    Raises:
        CheckpointError: a checkpoint that cannot be loaded, or an assistant that does not fit the model.
        ConfigError: device cuda, and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"variant {variant} on device cuda: torch finds no CUDA device; use device cpu")
    dtype = dtype or (torch.float16 if device == "cuda" else torch.float32)
    checkpoint = load_checkpoint(folder)
    draft_checkpoint = None if assistant is None else load_checkpoint(assistant)
    for loaded in (checkpoint, draft_checkpoint):
        if loaded is not None:
            nn.Module.to(loaded.model, device=device, dtype=dtype)
    return TorchRecognizer(checkpoint, num_threads=num_threads, assistant=draft_checkpoint)


class _TorchSession:
    """One batch: the encoder's output (B, P, D) and the decoder's cache."""

    def __init__(self, model: TrimmedWhisper, encoded: torch.Tensor) -> None:
        self._model, self.encoded = model, encoded
        self._cross_cache: Any = DynamicCache()  # one entry a window; the rows' own copies are in _cache
        self._cache: Any = None
        self._windows = np.zeros(0, dtype=np.int64)  # the window of each row

    def start(self, prefix: TokenIds, positions: Sequence[int] | None = None) -> Logits:
        """Read a prefix (B, T) and return (B, P, V); see ``DecoderSession``. Cross-attention's keys are kept."""
        self._cache = EncoderDecoderCache(DynamicCache(), self._cross_cache)
        self._windows = np.arange(len(prefix))
        return self._read(prefix, positions)

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each row, (R,), and return (R, V)."""
        logits: Logits = self._read(token_ids[:, None])[:, -1]
        return logits

    def extend(self, token_ids: TokenIds) -> Logits:
        """Read more tokens for each row, (R, T), and return (R, T, V)."""
        return self._read(token_ids)

    def crop(self, num_tokens: int) -> None:
        """Drop all but the first tokens from the cache; the prefix counts."""
        self._cache.self_attention_cache.crop(num_tokens)

    def reorder(self, rows: Sequence[int]) -> None:
        """Continue from these rows. Cross-attention's cache moves only if a row belongs to another window."""
        windows = self._windows[list(rows)]
        cross_cache = self._cache.cross_attention_cache
        if not np.array_equal(windows, self._windows):
            cross_cache = _take(cross_cache, rows)
        self._windows = windows
        self._cache = EncoderDecoderCache(_take(self._cache.self_attention_cache, rows), cross_cache)

    def select(self, rows: Sequence[int]) -> "_TorchSession":
        """Return a session of some of the windows."""
        index = torch.tensor(rows, device=self.encoded.device)
        selected = _TorchSession(self._model, self.encoded.index_select(0, index))
        selected._cross_cache = _take(self._cross_cache, rows)
        return selected

    def attend(
        self, row: int, token_ids: list[int], kinds: TokenKinds
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read given tokens for one window; see ``AttentionSource``."""
        attention = attend(
            self._model,
            self.encoded[row : row + 1],
            token_ids,
            heads=alignment_heads(self._model),
            kinds=kinds,
        )
        return attention.scores, attention.probabilities

    def _read(self, token_ids: TokenIds, positions: Sequence[int] | None = None) -> Logits:
        output = self._model.model.decoder(
            input_ids=torch.from_numpy(token_ids).to(self._model.device),
            encoder_hidden_states=self.encoded,
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden = output.last_hidden_state if positions is None else output.last_hidden_state[:, list(positions)]
        logits: Logits = self._model.proj_out(hidden).float().cpu().numpy()
        return logits


def have_same_encoder(model: TrimmedWhisper, other: TrimmedWhisper) -> bool:
    """Whether two models have the same encoder, as a distilled model and its teacher do: one encoding is enough."""
    mine, theirs = model.model.encoder.state_dict(), other.model.encoder.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _encode(model: TrimmedWhisper, input_features: torch.Tensor) -> torch.Tensor:
    features = input_features.to(device=model.device, dtype=model.dtype)
    encoded: torch.Tensor = model.model.encoder(features).last_hidden_state
    return encoded


def _take(held: Any, rows: Sequence[int]) -> Any:  # noqa: ANN401 - transformers has no types
    """Copy some rows of a cache."""
    taken = DynamicCache()
    for layer_index, layer in enumerate(held.layers):
        index = torch.tensor(rows, device=layer.keys.device)
        taken.update(layer.keys.index_select(0, index), layer.values.index_select(0, index), layer_index)
    return taken


@contextmanager
def _evaluating(model: TrimmedWhisper) -> Iterator[None]:
    """Switch dropout off, then on again in each module that had it on; a frozen encoder has it off in training."""
    were_training = [module for module in model.modules() if module.training]
    model.train(mode=False)
    try:
        yield
    finally:
        for module in were_training:
            module.training = True


@contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    """Set torch's process-wide thread count, then restore it."""
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        if num_threads is not None:
            torch.set_num_threads(before)
