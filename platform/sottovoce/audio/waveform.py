"""Sample formats, and the downmix of channels to one: their mean, unless they cancel each other out.

Shapes: N samples per channel in a block, C channels.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import Pcm, Waveform

Block: TypeAlias = NDArray[np.float32] | NDArray[np.int16]
"""(N, C) decoded samples: float32 as stored, normally in [-1, 1]; or int16, full scale 32 768."""


@dataclass(frozen=True, kw_only=True)
class AudioFormat:
    """The format that the container declares."""

    sampling_rate: int
    """Hz."""
    num_channels: int
    bits: int | None
    """Bits per stored sample; None for lossy codecs, and if the decoder does not report it."""
    container: str
    """The decoder's name for it: wav, flac, ogg, mp3, mov (also m4a and mp4), matroska (also webm), and others."""


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
    """Convert 16-bit PCM to a waveform.

    Args:
        pcm: (S,) int16.

    Returns:
        (S,) float32 in [-1, 1].
    """
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)


_STRIDE = 8  # every eighth sample shows the correlation of channels as well as all of them
_CANCELLED = 0.1
"""Channels cancel each other out if the power of their mean, relative to that of uncorrelated channels, is below this:
10 dB lower (guess). One silent channel gives 1, two equal ones 2, and an inverted one 0."""


class Downmix:
    """Averages the channels of one recording, block by block, and measures how they correlate."""

    def __init__(self, signs: Waveform | None = None) -> None:
        """Begin a recording.

        Args:
            signs: (C,) 1 or -1, where -1 inverts a channel before the mean; None inverts none.
        """
        self._signs = signs
        self._products: NDArray[np.float64] | None = None
        self.num_non_finite = 0
        """NaN or infinite samples so far."""

    def mix(self, block: Block) -> Waveform:
        """Average (N, C) channels to (N,) in [-1, 1]; a NaN becomes 0; NaN and infinite samples are counted."""
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and clipped
            mono = _average(block, self._signs)
            if block.shape[1] > 1 and self._signs is None:
                self._add_products(block)
        if block.dtype == np.int16:
            return mono
        if not np.isfinite(mono).all():  # searched in the mean, counted in the channels
            self.num_non_finite += block.size - int(np.count_nonzero(np.isfinite(block)))
            mono = np.nan_to_num(mono, nan=0.0)  # the resampler would spread a NaN
        return np.clip(mono, -1.0, 1.0, out=mono)

    def cancelling_signs(self) -> Waveform | None:
        """Return the ``signs`` to mix with if the channels cancelled each other out, else None.

        A microphone wired with opposite polarity, or a track that an editor inverted, leaves silence in the mean. A
        model then recognizes nothing, or invents text.
        """
        products = self._products
        if products is None or not products.sum() < _CANCELLED * products.trace():
            return None
        loudest = int(products.diagonal().argmax())
        return np.where(products[loudest] < 0.0, np.float32(-1.0), np.float32(1.0))

    def _add_products(self, block: Block) -> None:
        """Add the products (C, C) of every two channels to the sum."""
        some = block[::_STRIDE].astype(np.float32)
        products = np.einsum("nc,nd->cd", some, some).astype(np.float64)
        is_first = self._products is None or self._products.shape != products.shape
        self._products = products if is_first else self._products + products


def _average(block: Block, signs: Waveform | None) -> Waveform:
    """Average channels; two explicitly, since numpy's mean over a short axis takes twenty times as long."""
    scale = np.float32(1.0 / 32_768 if block.dtype == np.int16 else 1.0) / np.float32(block.shape[1])
    if block.shape[1] == 1:
        return np.multiply(block[:, 0], scale, dtype=np.float32)
    if signs is not None:
        return block.astype(np.float32, copy=False) @ (scale * signs)
    if block.shape[1] == 2:
        mono: Waveform = np.add(block[:, 0], block[:, 1], dtype=np.float32)
        return np.multiply(mono, scale, out=mono)
    return block.astype(np.float32, copy=False) @ np.full(block.shape[1], scale, np.float32)
