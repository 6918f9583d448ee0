"""The torch engine: a checkpoint decodes in the process that holds it, on a CPU or a GPU.

Shapes: B batch, M mel bins, F frames, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, EncoderDecoderCache

from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.context import AudioContext, TrimmedWhisper
from sottovoce.model.cross_attention import alignment_heads, attend
from sottovoce.recognize.batching import decode_batch, recognize_windows
from sottovoce.recognize.greedy import Logits, TokenIds
from sottovoce.recognize.vocabulary import build_vocabulary
from sottovoce.schema import DecodeOptions, Waveform, WindowResult


class TorchRecognizer:
    """Decode with a checkpoint's model as it stands: on its device, in its precision, never changing it.

    So a training worker can evaluate the model it trains.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_threads: int | None = None,
        autocast: torch.dtype | None = None,
        max_batch_size: int = 16,
    ) -> None:
        """Wrap a checkpoint.

        Args:
            checkpoint: the model with its tokenizer.
            num_threads: torch threads during a call, put back after it; None leaves the process's setting alone.
            autocast: precision to compute in where the weights stay float32, as in mixed-precision training.
            max_batch_size: windows per batch.

        Raises:
            CheckpointError: a generation config without languages.
        """
        self._model = checkpoint.model
        self._num_mel_bins = checkpoint.num_mel_bins
        self._vocabulary = build_vocabulary(
            checkpoint.tokenizer, checkpoint.model.generation_config, source=checkpoint.source
        )
        self._num_threads = num_threads
        self._autocast = autocast
        self._max_batch_size = max_batch_size

    @property
    def name(self) -> str:
        """``torch``."""
        return "torch"

    @property
    def context(self) -> AudioContext:
        """The audio contexts the model was trained on."""
        return self._model.audio_context

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the model knows."""
        return self._vocabulary.languages

    def recognize(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode windows greedily; see ``Recognizer``.

        Raises:
            ContextError: a window longer than the longest context.
            LanguageError: a language the model does not know.
            CheckpointError: word times, and alignment heads the decoder does not have.
        """
        with self._inference():
            return recognize_windows(
                self._open,
                windows,
                options,
                vocabulary=self._vocabulary,
                context=self.context,
                num_mel_bins=self._num_mel_bins,
                max_batch_size=self._max_batch_size,
            )

    def encode(self, input_features: torch.Tensor) -> torch.Tensor:
        """Run the encoder alone on (B, M, F), as ``recognize_encoded`` and a loss can share it; gives (B, P, D)."""
        with self._inference():
            features = input_features.to(device=self._model.device, dtype=self._model.dtype)
            encoded: torch.Tensor = self._model.model.encoder(features).last_hidden_state
            return encoded

    def recognize_encoded(self, encoded: torch.Tensor, options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode what ``encode`` gave, as ``recognize`` would have.

        Args:
            encoded: (B, P, D) windows of one context.
            options: B, alike in ``timestamps``; words are not timed, which takes the sound itself.

        Raises:
            LanguageError: a language the model does not know.
        """
        with self._inference():
            return decode_batch(_TorchSession(self._model, encoded), options, self._vocabulary)

    def _open(self, input_features: NDArray[np.float32]) -> "_TorchSession":
        return _TorchSession(self._model, self.encode(torch.from_numpy(input_features)))

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Compute without gradients and dropout, in this engine's precision and threads."""
        with (
            torch.inference_mode(),
            torch.autocast(self._model.device.type, dtype=self._autocast, enabled=self._autocast is not None),
            _evaluating(self._model),
            _threads(self._num_threads),
        ):
            yield


class _TorchSession:
    """One batch: the encoder's output (B, P, D), and the decoder's cache."""

    def __init__(self, model: TrimmedWhisper, encoded: torch.Tensor) -> None:
        self._model, self._encoded = model, encoded
        self._cross_cache: Any = DynamicCache()
        self._cache: Any = None

    def start(self, prefix: TokenIds) -> Logits:
        """Read a prefix (B, T) with an empty cache; keys and values of the encoder are kept. Gives (B, T, V)."""
        self._cache = EncoderDecoderCache(DynamicCache(), self._cross_cache)
        return self._read(prefix)

    def advance(self, token_ids: TokenIds) -> Logits:
        """Read one more token for each window, (B,). Gives (B, V)."""
        logits: Logits = self._read(token_ids[:, None])[:, -1]
        return logits

    def attend(self, row: int, token_ids: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read given tokens for one window; see ``AttentionSource``."""
        attention = attend(
            self._model,
            self._encoded[row : row + 1],
            token_ids,
            heads=alignment_heads(self._model),
            end_id=token_ids[-1],
        )
        return attention.scores, attention.probabilities

    def _read(self, token_ids: TokenIds) -> Logits:
        output = self._model.model.decoder(
            input_ids=torch.from_numpy(token_ids).to(self._model.device),
            encoder_hidden_states=self._encoded,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Logits = self._model.proj_out(output.last_hidden_state).float().cpu().numpy()
        return logits


@contextmanager
def _evaluating(model: TrimmedWhisper) -> Iterator[None]:
    """Switch dropout off, and back on in each module where it was on: a frozen encoder has it off while training."""
    were_training = [module for module in model.modules() if module.training]
    model.train(mode=False)
    try:
        yield
    finally:
        for module in were_training:
            module.training = True


@contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    """Set torch's process-wide thread count for a while."""
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        if num_threads is not None:
            torch.set_num_threads(before)
