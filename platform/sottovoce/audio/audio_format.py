"""How a recording was stored before it became a waveform."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

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
