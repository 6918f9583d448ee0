"""Distort clean synthetic speech like rooms, microphones and telephone lines do, so that micro generalizes better."""

from functools import cache

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from sottovoce.schema import SAMPLING_RATE, Waveform

# Probability of each distortion: guesses, not tuned.
_CLEAN, _SPEED, _TILT, _ROOM, _TELEPHONE, _NOISE = 0.2, 0.5, 0.5, 0.25, 0.25, 0.6
_TELEPHONE_RATE = 8_000  # Hz
_TAIL = SAMPLING_RATE // 8  # samples of reverberation
_BLOCK = 2_048  # FFT lengths are multiples of it: odd lengths take several times longer
_CURVE_HERTZ = np.geomspace(100.0, 8_000.0, 64)


def change_speed(waveform: Waveform, generator: Generator) -> Waveform:
    """Change the speed by up to 12 %, and with it pitch and formants, with a probability of 0.5."""
    if generator.random() > _SPEED:
        return waveform
    factor = generator.uniform(0.88, 1.12)
    resampled = soxr.resample(waveform, SAMPLING_RATE, SAMPLING_RATE * factor, quality="LQ")
    return np.asarray(resampled, dtype=np.float32)


def distort(waveform: Waveform, generator: Generator) -> Waveform:
    """Apply random spectral tilt, reverberation, telephone band, noise and level; a fifth of the speech stays clean.

    Args:
        waveform: (S,) float32.
        generator: source of all randomness.

    Returns:
        (S,) float32 with a peak between 0.05 and 0.95.
    """
    if generator.random() > _CLEAN:
        waveform = _filter(waveform, generator)
        waveform = _add_noise(waveform, generator)
    peak = float(np.abs(waveform).max())
    level = 0.95 * 10 ** (-generator.uniform(0.0, 24.0) / 20)
    return (waveform * np.float32(level / max(peak, 1e-4))).astype(np.float32)


def noise(num_samples: int, generator: Generator) -> Waveform:
    """Return coloured noise, between white and brown, from a bank; (S,) float32 of unit standard deviation."""
    bank = _noise_bank()
    track = bank[generator.integers(bank.shape[0])]
    start = int(generator.integers(track.shape[0]))
    return np.take(track, np.arange(start, start + num_samples), mode="wrap")


@cache
def _noise_bank() -> NDArray[np.float32]:
    """Make eight colours of 30 s each, once, since noise is the most expensive part of a distortion."""
    length = 30 * SAMPLING_RATE
    generator = np.random.default_rng(0)
    frequencies = np.maximum(np.arange(length // 2 + 1), 1.0)
    tracks = [
        np.fft.irfft(np.fft.rfft(generator.standard_normal(length)) * frequencies**-exponent, n=length)
        for exponent in np.linspace(0.0, 1.0, 8)
    ]
    return np.stack([track / track.std() for track in tracks]).astype(np.float32)


def _filter(waveform: Waveform, generator: Generator) -> Waveform:
    """Filter in the frequency domain: tilt with two broad resonances, reverberation, telephone band."""
    num_samples = waveform.shape[0]
    length = (
        -(-(num_samples + _TAIL) // _BLOCK) * _BLOCK
    )  # leave space for the reverberation, so that it does not wrap around
    spectrum = np.fft.rfft(waveform, n=length)
    hertz = np.linspace(0.0, SAMPLING_RATE / 2, spectrum.shape[0], dtype=np.float32)
    if generator.random() < _TILT:
        spectrum *= np.interp(hertz, _CURVE_HERTZ, _random_curve(generator)).astype(np.float32)
    if generator.random() < _ROOM:
        tail = np.zeros(length, dtype=np.float32)
        decay = np.exp(-np.arange(_TAIL) / (SAMPLING_RATE * generator.uniform(0.01, 0.06)))
        tail[:_TAIL] = generator.uniform(0.02, 0.15) * generator.standard_normal(_TAIL) * decay
        tail[0] = 1.0
        spectrum *= np.fft.rfft(tail)
    if generator.random() < _TELEPHONE:
        low, high = generator.uniform(50.0, 300.0), generator.uniform(3_300.0, _TELEPHONE_RATE / 2)
        spectrum[(hertz < low) | (hertz > high)] = 0.0
    return np.asarray(np.fft.irfft(spectrum, n=length)[:num_samples], dtype=np.float32)


def _random_curve(generator: Generator) -> NDArray[np.float64]:
    """Return a random gain for each frequency of ``_CURVE_HERTZ``: a tilt per octave and two resonances."""
    octaves = np.log2(_CURVE_HERTZ)
    decibels = generator.uniform(-4.0, 4.0) * (octaves - np.log2(1_000.0))
    for _ in range(2):
        centre, width = np.log2(generator.uniform(200, 6_000)), generator.uniform(0.3, 1.2)
        decibels += generator.uniform(-10.0, 8.0) * np.exp(-(((octaves - centre) / width) ** 2))
    return np.asarray(10 ** (np.clip(decibels, -30.0, 20.0) / 20))


def _add_noise(waveform: Waveform, generator: Generator) -> Waveform:
    if generator.random() > _NOISE:
        return waveform
    ratio_db = generator.uniform(8.0, 40.0)
    level = float(np.sqrt(np.mean(waveform**2))) * 10 ** (-ratio_db / 20)
    return waveform + np.float32(level) * noise(waveform.shape[0], generator)
