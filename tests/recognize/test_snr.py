"""The estimated signal-to-noise ratio of recordings whose ratio is known."""

import numpy as np
import pytest

from sottovoce.recognize.snr import LARGEST_SNR_DB, estimate_snr
from sottovoce.schema import SAMPLING_RATE, Waveform


def bursts() -> Waveform:
    """Six tones of 0.4 s with pauses of 0.3 s."""
    tone = 0.2 * np.sin(2 * np.pi * 200 * np.arange(round(0.4 * SAMPLING_RATE)) / SAMPLING_RATE)
    return np.tile(np.concatenate([tone, np.zeros(round(0.3 * SAMPLING_RATE))]), 6).astype(np.float32)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0, 30.0])
def test_noise_of_a_known_level_is_found_within_three_decibels(snr_db):
    waveform = bursts()
    power = np.square(waveform[waveform != 0.0]).mean()
    noise = np.random.default_rng(0).standard_normal(len(waveform)) * np.sqrt(power / 10 ** (snr_db / 10))
    assert estimate_snr((waveform + noise).astype(np.float32)) == pytest.approx(snr_db, abs=3.0)


def test_digital_silence_between_words_counts_as_the_largest_ratio():
    assert estimate_snr(bursts()) == LARGEST_SNR_DB


def test_a_recording_without_pauses_or_without_sound_has_none():
    assert estimate_snr(np.full(SAMPLING_RATE, 0.1, np.float32)) is None
    assert estimate_snr(np.zeros(SAMPLING_RATE, np.float32)) is None
    assert estimate_snr(np.zeros(0, np.float32)) is None
