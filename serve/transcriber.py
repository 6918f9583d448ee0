"""The engine replica: windows of any request in, text out, in shared batches."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ray import serve as ray_serve
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from serve.served_model import ServedModel
from sottovoce.audio.pcm import from_pcm
from sottovoce.errors import SottovoceError
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Pcm, WindowResult

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """One window and how to decode it."""

    pcm: Pcm
    options: DecodeOptions


class HungEngineError(RuntimeError):
    """A call of the engine that does not come back; Serve then replaces the replica."""


class Transcriber:
    """Holds one recognizer. Plain: ``app.py`` makes a deployment of it."""

    def __init__(
        self,
        model: str,
        *,
        variant: str,
        num_threads: int,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        max_batch_s: float,
    ) -> None:
        """Load the model and run it once, so that a ready replica answers at full speed.

        Args:
            model: checkpoint or export folder, or Hub id.
            variant: torch, fp32 or int8.
            num_threads: engine threads.
            max_batch_size: windows in one call.
            batch_wait_timeout_s: longest wait for a batch to fill.
            max_batch_s: a call that runs longer makes the replica unhealthy.

        Raises:
            CheckpointError: a model that cannot be loaded.
        """
        started = time.monotonic()
        self._batches = BatchedRecognizer(load_recognizer(model, variant=variant, num_threads=num_threads))
        self._max_batch_s = max_batch_s
        self._recognize_batch.set_max_batch_size(max_batch_size)  # type: ignore[attr-defined]
        self._recognize_batch.set_batch_wait_timeout_s(batch_wait_timeout_s)  # type: ignore[attr-defined]
        self._batches.warm_up()
        _log.info("%s ready after %.1f s", self._batches.recognizer.name, time.monotonic() - started)

    async def transcribe(self, pcm: Pcm, options: DecodeOptions) -> WindowResult:
        """Decode one window together with those that wait beside it.

        Args:
            pcm: (S,) int16, 16 000 Hz, at most the model's context long.
            options: of this window alone.

        Raises:
            ContextError: a window longer than the context.
            LanguageError: a language the model does not know.
        """
        outcome: WindowResult | SottovoceError = await self._recognize_batch(Window(pcm, options))
        if isinstance(outcome, SottovoceError):
            raise outcome
        return outcome

    @ray_serve.batch  # type: ignore[untyped-decorator,unused-ignore]
    async def _recognize_batch(self, windows: list[Window]) -> list[WindowResult | SottovoceError]:
        return await self._batches.recognize(windows)

    def describe(self) -> ServedModel:
        """Tell what is served."""
        recognizer = self._batches.recognizer
        return ServedModel(
            name=recognizer.name,
            min_window_s=recognizer.context.min_s,
            max_window_s=recognizer.context.max_s,
            language_names={code: LANGUAGES.get(code, code) for code in recognizer.languages},
        )

    def check_health(self) -> None:
        """Serve asks this every few seconds.

        Raises:
            HungEngineError: one call has been running for longer than any request may take.
        """
        if self._batches.running_s() > self._max_batch_s:
            raise HungEngineError(f"one engine call has run for more than {self._max_batch_s:g} s")


class BatchedRecognizer:
    """A recognizer run off the event loop, whose batches survive one faulty window."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self._started: float | None = None

    def warm_up(self) -> None:
        """Decode one window of silence of the longest context: buffers are allocated, kernels chosen."""
        silence = np.zeros(int(self.recognizer.context.max_s * SAMPLING_RATE), np.float32)
        language = "en" if "en" in self.recognizer.languages else None
        self.recognizer.recognize([silence], [DecodeOptions(language=language, max_new_tokens=4)])

    async def recognize(self, windows: Sequence[Window]) -> list[WindowResult | SottovoceError]:
        """Decode a batch in a thread; one call at a time.

        Returns:
            For each window its result, or the error that is its own fault.
        """
        self._started = time.monotonic()
        try:
            return await asyncio.to_thread(self._recognize, windows)
        finally:
            self._started = None

    def running_s(self) -> float:
        """Tell how long the running call has taken; 0 when none runs."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _recognize(self, windows: Sequence[Window]) -> list[WindowResult | SottovoceError]:
        try:
            return [*self._decode(windows)]
        except SottovoceError as error:
            if len(windows) == 1:
                return [error]
            return [outcome for window in windows for outcome in self._recognize([window])]

    def _decode(self, windows: Sequence[Window]) -> list[WindowResult]:
        waveforms = [from_pcm(window.pcm) for window in windows]
        return self.recognizer.recognize(waveforms, [window.options for window in windows])
