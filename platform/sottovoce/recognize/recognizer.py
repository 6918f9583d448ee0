"""The interface of every engine: windows of speech in, text out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Unpack

from sottovoce.model.audio_context import AudioContext
from sottovoce.recognize.longform.options import Decoding, LongFormOptions
from sottovoce.recognize.longform.segment import Transcript
from sottovoce.recognize.steps import BatchDecoding
from sottovoce.schema import DecodeOptions, Waveform, WindowResult


class Recognizer(Protocol):
    """An engine with a loaded model. One call at a time; a batch may mix languages, tasks and lengths."""

    @property
    def name(self) -> str:
        """Engine and variant, as in ``onnx-int8``."""

    @property
    def context(self) -> AudioContext:
        """The audio contexts the model was trained on; no window is longer than ``context.max_s``."""

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes the model knows."""

    def recognize(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[WindowResult]:
        """Decode windows in batches of equal context, each with its own options.

        Args:
            windows: each (S,) float32, 16 000 Hz, at most ``context.max_s`` long.
            options: one for each window.

        Returns:
            One result for each window, in order.

        Raises:
            ContextError: a window longer than the longest context.
            LanguageError: a language the model does not know.
        """

    def decode_in_steps(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[BatchDecoding]:
        """Prepare to decode windows as ``recognize`` does, in steps that one caller takes one at a time.

        Returns:
            The decodings of all windows, each of windows that share a context. The caller chooses which of them, or of
            another call's, takes the next step.

        Raises:
            ContextError, LanguageError: as ``recognize``, before any step.
        """

    def transcribe(
        self,
        audio: str | Path | Waveform,
        *,
        long_form: LongFormOptions | None = None,
        batch_size: int = ...,
        show_progress: bool = ...,
        **decoding: Unpack[Decoding],
    ) -> Transcript:
        """Transcribe a recording of any length. Every engine uses the function in ``longform/transcribe.py``."""
        ...
