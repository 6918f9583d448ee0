"""Voice activity detection: find speech with the Silero VAD network in ONNX Runtime, block by block.

Only the network's file is taken from the silero-vad package: importing the package would load torch into a gateway.
Shapes: S samples, N frames of 32 ms.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import distribution
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from sottovoce.audio.waveform import from_pcm
from sottovoce.schema import SAMPLING_RATE, Pcm, Waveform

Probabilities: TypeAlias = NDArray[np.float32]
"""(N,) the probability of speech in each frame, in [0, 1]."""
Span: TypeAlias = tuple[int, int]
"""First and last-plus-one sample."""

USUAL_THRESHOLD = 0.5
"""Probability of speech above which a frame counts as speech, as in the package."""
FRAME_SAMPLES = 512  # 32 ms, the only length the network reads at 16 000 Hz

_NETWORK = "silero_vad/data/silero_vad_16k_sequence.onnx"
_CONTEXT_SAMPLES = 64  # of the previous frame, prepended to each frame
_BLOCK_FRAMES = 256  # 8.2 s per call: windows become known early, and the overhead of calls is small
_STATE_SHAPE = (1, 1, 128)
_HYSTERESIS, _LOWEST_END = 0.15, 0.01  # speech ends this far below its threshold, as in the package
_LEVEL = 0.5
"""Peak that the loud parts are raised to. Of 200 recorded digits of 0.4 s, no speech was found in 10 at their own level
and in 1 at this one; made 30 dB softer, in 167 and in 3. Minutes of coloured noise gave no speech (fsdd, 2026)."""
_LOUD = 0.99  # quantile of the frames' peaks that is loud: a click is not
_MAX_GAIN = 100.0
_MIN_SPEECH_S = 0.064  # shorter bursts are clicks: two frames; the package's 0.25 s would lose a spoken digit


class Samples(Protocol):
    """(S,) samples that are read span by span: an array, or a recording that may be released meanwhile."""

    def __len__(self) -> int:
        """Return S."""
        ...

    def __getitem__(self, span: slice, /) -> Pcm | Waveform:
        """Return a span as int16, or as float32 in [-1, 1]."""
        ...


class VoiceActivity:
    """The loaded network; it keeps no state between recordings, so threads may share it."""

    def __init__(self, path: str) -> None:
        import onnxruntime  # here: 40 MB, needed only for recordings of several windows

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = (
            1  # a frame is small, and other threads decode meanwhile
        )
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def probabilities(self, samples: Samples, *, gain: float = 1.0) -> Iterator[Probabilities]:
        """Compute the probabilities of speech of a recording, block by block.

        Args:
            samples: (S,) int16, or float32 in [-1, 1]; 16 000 Hz.
            gain: factor on the samples; see ``speech_gain``.

        Yields:
            (N,) of the next frames; the last frame of the recording is padded with silence.
        """
        hidden, cell = np.zeros(_STATE_SHAPE, np.float32), np.zeros(_STATE_SHAPE, np.float32)
        before = np.zeros(_CONTEXT_SAMPLES, np.float32)
        block_samples = _BLOCK_FRAMES * FRAME_SAMPLES
        for start in range(0, len(samples), block_samples):
            waveform = as_waveform(samples[start : start + block_samples])
            frames = _to_frames(waveform if gain == 1.0 else np.clip(waveform * np.float32(gain), -1.0, 1.0))
            contexts = np.concatenate([before[None], frames[:-1, -_CONTEXT_SAMPLES:]])
            before = frames[-1, -_CONTEXT_SAMPLES:]
            probabilities, hidden, cell = self._session.run(
                ["speech_probs", "hn", "cn"], {"input": np.hstack([contexts, frames]), "h": hidden, "c": cell}
            )
            yield probabilities


@cache
def load_voice_activity() -> VoiceActivity:
    """Load the network once per process."""
    return VoiceActivity(str(distribution("silero-vad").locate_file(_NETWORK)))


def speech_gain(samples: Samples) -> float:
    """Return the factor, at least 1, that raises a soft recording (S,) to a level at which the network works."""
    block_samples = _BLOCK_FRAMES * FRAME_SAMPLES
    peaks = [
        np.abs(_to_frames(as_waveform(samples[start : start + block_samples]))).max(axis=1)
        for start in range(0, len(samples), block_samples)
    ]
    loud = float(np.quantile(np.concatenate(peaks), _LOUD)) if peaks else 0.0
    return min(max(_LEVEL / max(loud, _LEVEL / _MAX_GAIN), 1.0), _MAX_GAIN)


def find_speech(
    blocks: Iterable[Probabilities],
    *,
    num_samples: int,
    threshold: float,
    min_silence_s: float,
    min_speech_s: float = _MIN_SPEECH_S,
) -> Iterator[Span]:
    """Find the spans of speech, each as soon as it has ended.

    Args:
        blocks: of the whole recording, in order.
        num_samples: of the recording.
        threshold: lowest probability of a frame of speech; a span ends when the probability falls well below.
        min_silence_s: a shorter silence does not end a span.
        min_speech_s: spans that are not longer are dropped.

    Yields:
        Spans in samples, in order, without margins.

    Source: get_speech_timestamps of silero-vad 6.2, checked against it in test_voice_activity.
    """
    low = max(threshold - _HYSTERESIS, _LOWEST_END)
    start: int | None = None
    quiet_from: int | None = None
    position = 0
    for probability in (float(value) for block in blocks for value in block):
        if probability >= threshold:
            start, quiet_from = position if start is None else start, None
        elif start is not None and probability < low:
            quiet_from = position if quiet_from is None else quiet_from
            if position - quiet_from >= min_silence_s * SAMPLING_RATE:
                if quiet_from - start > min_speech_s * SAMPLING_RATE:
                    yield start, quiet_from
                start = quiet_from = None
        position += FRAME_SAMPLES
    if start is not None and num_samples - start > min_speech_s * SAMPLING_RATE:
        yield start, num_samples


def as_waveform(samples: Pcm | Waveform) -> Waveform:
    """Convert int16 samples to a waveform; return a waveform unchanged."""
    return from_pcm(cast("Pcm", samples)) if samples.dtype == np.int16 else cast("Waveform", samples)


def _to_frames(waveform: Waveform) -> Waveform:
    return np.pad(waveform, (0, -len(waveform) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
