"""Run the engine of a replica off the event loop: one batch at a time, errors isolated to their window."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sottovoce.audio.waveform import from_pcm
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Pcm, WindowResult


@dataclass(frozen=True)
class Window:
    """One window and how to decode it."""

    pcm: Pcm
    options: DecodeOptions
    arrived: float = field(default_factory=time.monotonic)
    """When it came to the replica, by the monotonic clock."""


class Engine:
    """The replica's CPU cores, on which one recognizer at a time computes."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        """Held while windows are decoded. Warming up a newly loaded model does not need it."""
        self._started: float | None = None

    async def recognize(self, recognizer: Recognizer, windows: Sequence[Window]) -> list[WindowResult | Exception]:
        """Decode a batch in a thread. The caller holds the lock.

        Returns:
            For each window its result, or the error that this window alone causes.
        """
        self._started = time.monotonic()
        try:
            return await asyncio.to_thread(_recognize, recognizer, windows)
        finally:
            self._started = None

    def running_s(self) -> float:
        """Return the seconds since the running call started; 0 when none runs."""
        return 0.0 if self._started is None else time.monotonic() - self._started


def warm_up(recognizer: Recognizer) -> None:
    """Decode silence of the longest context once, so that buffers are allocated and kernels chosen.

    Raises:
        SottovoceError: the recognizer cannot decode.
    """
    silence = np.zeros(int(recognizer.context.max_s * SAMPLING_RATE), np.float32)
    language = "en" if "en" in recognizer.languages else None
    recognizer.recognize([silence], [DecodeOptions(language=language, max_new_tokens=4)])


def _recognize(recognizer: Recognizer, windows: Sequence[Window]) -> list[WindowResult | Exception]:
    try:
        waveforms = [from_pcm(window.pcm) for window in windows]
        return [*recognizer.recognize(waveforms, [window.options for window in windows])]
    except Exception as error:  # noqa: BLE001 - torch and ONNX Runtime raise anything; it must fail this window only
        if len(windows) == 1:
            return [error]
        return [outcome for window in windows for outcome in _recognize(recognizer, [window])]
