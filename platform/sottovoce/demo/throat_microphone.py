"""A simulated throat microphone, for the quickstart: what a sensor on the neck does to speech.

Simulated, in this order:
    1. the neck passes low sounds and swallows high ones: the level falls by 24 dB per octave above a corner
       between 1.6 and 2.4 kHz, so that most of the energy of s, f, t and k is gone;
    2. the body resonates: two broad peaks near 250 and 700 Hz, and little below 80 Hz;
    3. the sensor's amplifier clips: the waveform is driven into a soft limit;
    4. rubbing and blood flow: noise that falls with frequency, 12 to 24 dB below the speech.
Not simulated: the loss of the mouth's and nose's own sound, changes with how the strap sits, swallowing.
The figures are plausible, not measured on a device.
"""

import numpy as np
from numpy.random import Generator

from sottovoce.demo.distort import noise
from sottovoce.schema import SAMPLING_RATE, Waveform

_DECIBELS_PER_OCTAVE = 24.0
_PEAKS_HERTZ = (250.0, 700.0)
_LOWEST_HERTZ = 80.0


def through_throat_microphone(waveform: Waveform, generator: Generator) -> Waveform:
    """Play speech through the simulated sensor.

    Args:
        waveform: (S,) float32 in [-1, 1], 16 000 Hz.
        generator: source of all randomness.

    Returns:
        (S,) float32 in [-1, 1].
    """
    filtered = _filter(waveform, generator)
    drive = generator.uniform(1.5, 4.0) / max(float(np.abs(filtered).max()), 1e-6)
    clipped = np.tanh(filtered * np.float32(drive))
    level = float(clipped.std()) * 10 ** (-generator.uniform(12.0, 24.0) / 20)
    noisy = clipped + np.float32(level) * noise(waveform.shape[0], generator)
    return np.asarray(0.5 * noisy / max(float(np.abs(noisy).max()), 1e-6), dtype=np.float32)


def _filter(waveform: Waveform, generator: Generator) -> Waveform:
    spectrum = np.fft.rfft(waveform)
    hertz = np.maximum(np.linspace(0.0, SAMPLING_RATE / 2, spectrum.shape[0]), 1.0)
    corner = generator.uniform(1_600.0, 2_400.0)
    decibels = -_DECIBELS_PER_OCTAVE * np.maximum(np.log2(hertz / corner), 0.0)
    decibels -= _DECIBELS_PER_OCTAVE * np.maximum(np.log2(_LOWEST_HERTZ / hertz), 0.0)
    for peak in _PEAKS_HERTZ:
        centre = peak * generator.uniform(0.8, 1.25)
        decibels += generator.uniform(4.0, 10.0) * np.exp(-((np.log2(hertz / centre) / 0.5) ** 2))
    gain = 10 ** (np.maximum(decibels, -90.0) / 20)
    return np.fft.irfft(spectrum * gain, n=waveform.shape[0]).astype(np.float32)
