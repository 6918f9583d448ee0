"""The log-mel spectrogram Whisper reads, on the CPU.

What makes it fast, measured by benchmarks/log_mel.py:

- only frames that touch speech are computed; what follows them is one constant, see ``Padding``;
- everything is float32, in blocks of frames that fit a core's cache;
- a block stores sample n of all its frames contiguously, so that each step runs over contiguous memory and SciPy
  transforms several frames at once, in place;
- a frequency lies under at most two mel filters, so the filters are a sparse matrix. BLAS is not used: its threads
  contend over products this small.

Shapes: B batch, S samples, M mel bins, F frames (one per 10 ms), W the hops of a block.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import ContextError, UnsupportedMelBinsError
from sottovoce.schema import HOP_LENGTH, SAMPLING_RATE, LogMel, Waveform

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Padding: TypeAlias = Literal["sound", "frames"]
"""What follows a waveform that is shorter than its context. ``sound``: the waveform is padded with zeros, as in Hugging
Face's extractor, so its last frames are as quiet as a spectrogram can be. ``frames``: frames from S // 160 on are 0, as
in openai-whisper; OpenAI's weights write fewer errors so (benchmarks/padding.py)."""

WINDOW_LENGTH = 400  # samples: 25 ms
DYNAMIC_RANGE = 1e-8  # of the loudest bin's power; quieter bins are raised to it
SILENCE = 1e-10  # power floor before the logarithm
_NUM_FREQUENCIES = WINDOW_LENGTH // 2 + 1  # 201
_HALF_WINDOW = WINDOW_LENGTH // 2  # samples of the first window before the waveform begins
_HOPS_BEYOND = -(-WINDOW_LENGTH // HOP_LENGTH) - 1  # a window reaches into the two hops after its own
_BLOCK_FRAMES = 298  # 300 hops; on an EPYC with 1 MB of L2 a core, 240 to 600 took the same (2026-11)
_WIDTH_STEP = 12  # hops: blocks have 25 widths, whose windows are kept; SciPy transforms four frames at once


def log_mel(waveform: Waveform, *, num_mel_bins: int, num_frames: int, padding: Padding = "sound") -> LogMel:
    """Compute the log-mel spectrogram of a waveform.

    Args:
        waveform: (S,) float32 in [-1, 1], mono, 16 000 Hz, at most ``num_frames`` * 160 samples.
        num_mel_bins: 80, or 128 for large-v3.
        num_frames: frames to return; shorter speech is padded to them.
        padding: how.

    Returns:
        (M, F) float32, log10-scaled; max - min <= 2 within the frames of the speech.

    Raises:
        UnsupportedMelBinsError: any other bin count.
        ContextError: more speech than ``num_frames`` hold.

    Source: Radford et al. 2022, section 2.2; equal within 1e-4 to Hugging Face's extractor, or with ``frames`` to
    openai-whisper's (test_features).
    """
    spectrogram: LogMel = log_mel_batch([waveform], num_mel_bins=num_mel_bins, num_frames=num_frames, padding=padding)[
        0
    ]
    return spectrogram


def log_mel_batch(
    waveforms: Sequence[Waveform], *, num_mel_bins: int, num_frames: int, padding: Padding = "sound"
) -> NDArray[np.float32]:
    """Compute the log-mel spectrograms of several waveforms, each as ``log_mel`` does.

    Returns:
        (B, M, F) float32.

    Raises:
        UnsupportedMelBinsError: a bin count no Whisper uses.
        ContextError: more speech in any of them than ``num_frames`` hold.
    """
    filters = _sparse_filters(num_mel_bins)
    num_samples = num_frames * HOP_LENGTH
    spectrograms = np.empty((len(waveforms), num_mel_bins, num_frames), dtype=np.float32)
    for waveform, spectrogram in zip(waveforms, spectrograms, strict=True):
        if waveform.shape[0] > num_samples:
            raise ContextError(waveform.shape[0] / SAMPLING_RATE, num_samples / SAMPLING_RATE)
        _fill(waveform, filters, spectrogram)
        if padding == "frames":  # the one or two frames that begin after the speech counted for the floor, as there
            spectrogram[:, waveform.shape[0] // HOP_LENGTH :] = 0.0
    return spectrograms


@cache
def mel_filters(num_mel_bins: int) -> NDArray[np.float32]:
    """Build the triangular filters of Slaney's mel scale, 0 to 8 000 Hz, each with unit area.

    Returns:
        (M, 201) float32.

    Raises:
        UnsupportedMelBinsError: a bin count no Whisper uses.

    Source: Slaney 1998, Auditory Toolbox; the same matrix librosa and openai/whisper use.
    """
    if num_mel_bins not in (80, 128):
        raise UnsupportedMelBinsError(num_mel_bins)
    frequencies = np.linspace(0.0, SAMPLING_RATE / 2, _NUM_FREQUENCIES)
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLING_RATE / 2), num_mel_bins + 2))
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies - lower) / (centre - lower)
    falling = (upper - frequencies) / (upper - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (upper - lower))).astype(np.float32)


@cache
def hann_window() -> NDArray[np.float32]:
    """Return the periodic Hann window, (400,) float32."""
    return np.hanning(WINDOW_LENGTH + 1)[:-1].astype(np.float32)


def _fill(waveform: Waveform, filters: "csr_array", spectrogram: LogMel) -> None:
    """Fill ``spectrogram`` (M, F): compute the frames that touch speech, and set the rest to silence."""
    num_frames = spectrogram.shape[1]
    num_sounding = min(num_frames, -(-(waveform.shape[0] + _HALF_WINDOW) // HOP_LENGTH)) if waveform.shape[0] else 0
    power = spectrogram[:, :num_sounding]
    num_blocks = -(-num_sounding // _BLOCK_FRAMES)
    for block in range(num_blocks):
        first, last = block * num_sounding // num_blocks, (block + 1) * num_sounding // num_blocks
        width = -(-(last - first + _HOPS_BEYOND) // _WIDTH_STEP) * _WIDTH_STEP
        hops = _hops(waveform, first, width, num_frames=num_frames)
        power[:, first:last] = _mel_power(hops, filters)[:, : last - first]
    floor = np.maximum(power.max(initial=0.0) * np.float32(DYNAMIC_RANGE), np.float32(SILENCE))
    np.maximum(power, np.full(num_sounding, floor), out=power)  # NumPy compares with a row five times faster
    np.log10(power, out=power)
    power *= 0.25
    power += 1
    spectrogram[:, num_sounding:] = np.log10(floor) * 0.25 + 1


def _hops(waveform: Waveform, first: int, width: int, *, num_frames: int) -> NDArray[np.float32]:
    """Return the samples from the window of frame ``first`` on: (W, 160).

    The waveform is padded with zeros to its context, and the context is reflected at both ends.
    """
    start = first * HOP_LENGTH - _HALF_WINDOW
    stop = start + width * HOP_LENGTH
    if start >= 0 and stop <= waveform.shape[0]:
        return waveform[start:stop].reshape(width, HOP_LENGTH)
    samples = np.zeros(stop - start, dtype=np.float32)
    inside = waveform[max(start, 0) : stop]
    samples[max(-start, 0) :][: inside.shape[0]] = inside
    end = num_frames * HOP_LENGTH - start
    if end < samples.shape[0]:
        reflected = samples[end - 1 - _HALF_WINDOW : end - 1][::-1]
        samples[end : end + _HALF_WINDOW] = reflected[: samples.shape[0] - end]
    if start < 0:
        samples[:_HALF_WINDOW] = samples[_HALF_WINDOW + 1 :][:_HALF_WINDOW][::-1]
    return samples.reshape(width, HOP_LENGTH)


def _mel_power(hops: NDArray[np.float32], filters: "csr_array") -> NDArray[np.float32]:
    """Compute the power in each mel bin: (W, 160) to (M, W). The last two columns are not frames.

    Row n of the hops' transpose holds sample n of each hop. Read from the next column on, it holds sample n of each
    following hop, which is sample n + 160 of each window. As flat arrays the shift costs nothing; only the last two
    columns of a row then come from the row below.

    SciPy calls fftpack legacy, but scipy.fft cannot transform real numbers in place, and took a tenth longer.
    """
    from scipy.fftpack import rfft  # here, because SciPy takes a fifth of a second to import

    width = hops.shape[0]
    columns = np.zeros(HOP_LENGTH * width + _HOPS_BEYOND, dtype=np.float32)
    np.copyto(columns[:-_HOPS_BEYOND].reshape(HOP_LENGTH, width), hops.T)
    window = _window_rows(width)
    windowed = np.empty(WINDOW_LENGTH * width, dtype=np.float32)
    for hop, start in enumerate(range(0, WINDOW_LENGTH * width, HOP_LENGTH * width)):
        part = windowed[start : start + HOP_LENGTH * width]
        np.multiply(columns[hop : hop + part.shape[0]], window[start : start + part.shape[0]], out=part)
    spectrum = rfft(windowed.reshape(WINDOW_LENGTH, width), axis=0, overwrite_x=True)
    np.multiply(spectrum, spectrum, out=spectrum)
    power: NDArray[np.float32] = filters @ spectrum
    return power


@cache
def _sparse_filters(num_mel_bins: int) -> "csr_array":
    """Return the mel filters for fftpack's spectrum: (M, 400); a row holds Re 0, Re 1, Im 1, Re 2, Im 2, ... Re 200."""
    from scipy.sparse import csr_array  # here for the same reason

    return csr_array(np.repeat(mel_filters(num_mel_bins), 2, axis=1)[:, 1:-1])


@cache
def _window_rows(width: int) -> NDArray[np.float32]:
    """Repeat each value of the window ``width`` times: (400 * W,)."""
    return np.repeat(hann_window(), width)


_LINEAR_HERTZ_PER_MEL = 200.0 / 3
_LOG_START_HERTZ = 1_000.0  # Slaney's scale is linear below and logarithmic above
_LOG_START_MEL = _LOG_START_HERTZ / _LINEAR_HERTZ_PER_MEL  # 15
_LOG_STEP = np.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _LOG_START_HERTZ:
        return hertz / _LINEAR_HERTZ_PER_MEL
    return float(_LOG_START_MEL + np.log(hertz / _LOG_START_HERTZ) / _LOG_STEP)


def _mel_to_hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mels * _LINEAR_HERTZ_PER_MEL
    logarithmic = _LOG_START_HERTZ * np.exp(_LOG_STEP * (np.maximum(mels, _LOG_START_MEL) - _LOG_START_MEL))
    return np.where(mels < _LOG_START_MEL, linear, logarithmic)
