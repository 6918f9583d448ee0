"""16-bit PCM, how audio travels between processes: half the bytes of float32, and nothing audible lost."""

import numpy as np

from sottovoce.schema import Pcm, Waveform

FULL_SCALE = 32_767.0  # of int16, stands for 1.0


def to_pcm(waveform: Waveform) -> Pcm:
    """Round a waveform to 16-bit PCM; samples outside [-1, 1] are clipped.

    Args:
        waveform: (S,) float32.

    Returns:
        (S,) int16.
    """
    return np.round(np.clip(waveform, -1.0, 1.0) * FULL_SCALE).astype(np.int16)


def from_pcm(pcm: Pcm) -> Waveform:
    """Turn 16-bit PCM back into a waveform.

    Args:
        pcm: (S,) int16.

    Returns:
        (S,) float32 in [-1, 1].
    """
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)
