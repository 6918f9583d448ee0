"""The log-mel spectrogram Whisper reads.

Shapes: S samples, M mel bins, F frames (one per 10 ms).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import ContextError, UnsupportedMelBinsError
from sottovoce.schema import HOP_LENGTH, SAMPLING_RATE, LogMel, Waveform

_WINDOW_LENGTH = 400  # samples: 25 ms
_NUM_FREQUENCIES = _WINDOW_LENGTH // 2 + 1  # 201
_DYNAMIC_RANGE = 8.0  # log10 units kept below the loudest bin
_SILENCE = 1e-10  # power floor before the logarithm


def log_mel(waveform: Waveform, *, num_mel_bins: int, num_frames: int) -> LogMel:
    """Turn speech into the picture Whisper reads.

    Args:
        waveform: (S,) float32 in [-1, 1], mono, 16 000 Hz, at most ``num_frames`` * 160 samples.
        num_mel_bins: 80, or 128 for large-v3.
        num_frames: frames to return; shorter speech is zero-padded to them.

    Returns:
        (M, F) float32, log10-scaled; max - min <= 2.

    Raises:
        UnsupportedMelBinsError: any other bin count.
        ContextError: more speech than ``num_frames`` hold.

    Source: Radford et al. 2022, section 2.2; equal to Hugging Face's extractor within 1e-4 (test_features).
    """
    filters = mel_filters(num_mel_bins)
    num_samples = num_frames * HOP_LENGTH
    if waveform.shape[0] > num_samples:
        raise ContextError(waveform.shape[0] / SAMPLING_RATE, num_samples / SAMPLING_RATE)
    padded = np.zeros(num_samples, dtype=np.float32)
    padded[: waveform.shape[0]] = waveform
    log_spec = np.log10(np.maximum(filters @ _power(padded, num_frames), np.float32(_SILENCE)))
    log_spec = np.maximum(log_spec, log_spec.max() - np.float32(_DYNAMIC_RANGE))
    return np.asarray((log_spec + np.float32(4.0)) / np.float32(4.0), dtype=np.float32)


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


def _power(padded: Waveform, num_frames: int) -> NDArray[np.float32]:
    """Square the short-time Fourier transform: (S,) to (201, F), windows centred on their frame."""
    half = _WINDOW_LENGTH // 2
    reflected = np.pad(padded, (half, half), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(reflected, _WINDOW_LENGTH)[::HOP_LENGTH][:num_frames]
    spectrum = np.fft.rfft(windows * _hann(), axis=-1)
    return np.ascontiguousarray((spectrum.real**2 + spectrum.imag**2).T, dtype=np.float32)


@cache
def _hann() -> NDArray[np.float32]:
    """The periodic Hann window."""
    return np.hanning(_WINDOW_LENGTH + 1)[:-1].astype(np.float32)


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
