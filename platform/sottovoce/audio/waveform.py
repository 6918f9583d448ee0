"""Many channels to one: their mean, unless they cancel each other out.

Shapes: N samples per channel in a block, C channels.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import Pcm, Waveform

Block: TypeAlias = NDArray[np.float32] | NDArray[np.int16]
"""(N, C) decoded samples: float32 as the container says, in [-1, 1] if it is sane; or int16, full scale 32 768."""


@dataclass(frozen=True, kw_only=True)
class AudioFormat:
    """What the container says of its audio."""

    sampling_rate: int
    """Hz."""
    num_channels: int
    bits: int | None
    """Bits of a stored sample; None for lossy codecs, which have no such thing, and where the decoder does not say."""
    container: str
    """As the decoder names it: wav, flac, ogg, mp3, mov (m4a and mp4 too), matroska (webm too), and others."""


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


_STRIDE = 8  # every eighth sample tells how channels go together as well as all of them
_CANCELLED = 0.1
"""Power of the mean, relative to that of as many channels that know nothing of each other, below which they are wired
against each other: 10 dB lower (guess). One silent channel gives 1, two alike 2, and one turned around 0."""


class Downmix:
    """Mixes the blocks of one recording and keeps in mind how its channels go together."""

    def __init__(self, signs: Waveform | None = None) -> None:
        """Begin a recording.

        Args:
            signs: (C,) 1 or -1: channels to turn around before they are averaged; none when None.
        """
        self._signs = signs
        self._products: NDArray[np.float64] | None = None
        self.num_non_finite = 0
        """Samples that were no numbers, so far."""

    def mix(self, block: Block) -> Waveform:
        """Average (N, C) channels to (N,) in [-1, 1]; a sample that is no number becomes 0 and is counted."""
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and clipped
            mono = _average(block, self._signs)
            if block.shape[1] > 1 and self._signs is None:
                self._watch(block)
        if block.dtype == np.int16:
            return mono
        if not np.isfinite(mono).all():  # looked for in the mean, counted in the channels
            self.num_non_finite += block.size - int(np.count_nonzero(np.isfinite(block)))
            mono = np.nan_to_num(mono, nan=0.0)  # so that the resampler meets numbers
        return np.clip(mono, -1.0, 1.0, out=mono)

    def cancelling_signs(self) -> Waveform | None:
        """Give what ``signs`` should have been where the channels cancelled each other out, else None.

        Two plugs of a microphone wired the wrong way around, or one track turned by an editor, leave silence in the
        mean of both, in which a model hears nothing, or invents.
        """
        products = self._products
        if products is None or not products.sum() < _CANCELLED * products.trace():
            return None
        loudest = int(products.diagonal().argmax())
        return np.where(products[loudest] < 0.0, np.float32(-1.0), np.float32(1.0))

    def _watch(self, block: Block) -> None:
        """Add up the products (C, C) of every two channels."""
        some = block[::_STRIDE].astype(np.float32)
        products = np.einsum("nc,nd->cd", some, some).astype(np.float64)
        is_first = self._products is None or self._products.shape != products.shape
        self._products = products if is_first else self._products + products


def _average(block: Block, signs: Waveform | None) -> Waveform:
    """Average channels; two by hand, since numpy's mean over a short axis takes twenty times as long."""
    scale = np.float32(1.0 / 32_768 if block.dtype == np.int16 else 1.0) / np.float32(block.shape[1])
    if block.shape[1] == 1:
        return np.multiply(block[:, 0], scale, dtype=np.float32)
    if signs is not None:
        return block.astype(np.float32, copy=False) @ (scale * signs)
    if block.shape[1] == 2:
        mono: Waveform = np.add(block[:, 0], block[:, 1], dtype=np.float32)
        return np.multiply(mono, scale, out=mono)
    return block.astype(np.float32, copy=False) @ np.full(block.shape[1], scale, np.float32)
