"""What is unusual about a recording that can be used all the same."""

import numpy as np

from sottovoce.audio.audio_format import AudioFormat
from sottovoce.schema import SAMPLING_RATE, RemarkKind, Waveform

_USUAL_BITS = 16
_MIN_USUAL_RATE, _MAX_USUAL_RATE = 8_000, 48_000  # Hz: telephone to studio
_MAX_USUAL_CHANNELS = 2
# From here on guesses, untested.
_FULL_SCALE = 0.999  # of 1.0: resampling bends the flat tops a little
_MAX_CLIPPED = 0.001  # of the samples; a healthy recording touches full scale in a few samples at most
_DURATION_TOLERANCE_S, _DURATION_TOLERANCE = 0.1, 0.01  # the larger of the two: metadata is often rounded


def remark_on(
    waveform: Waveform, audio_format: AudioFormat, *, declared_s: float | None
) -> list[tuple[RemarkKind, str]]:
    """Say what is unusual and what was done about it.

    Args:
        waveform: (S,) as decoded, resampled and averaged.
        audio_format: what the container held.
        declared_s: how long the row says it is; a recording that goes on is cut there and is no surprise.
    """
    remarks: list[tuple[RemarkKind, str]] = []
    if audio_format.bits is not None and audio_format.bits < _USUAL_BITS:
        remarks.append(("low_bit_depth", f"{audio_format.bits} bits a sample; used as it is"))
    if not _MIN_USUAL_RATE <= audio_format.sampling_rate <= _MAX_USUAL_RATE:
        remarks.append(("unusual_rate", f"{audio_format.sampling_rate} Hz; resampled to {SAMPLING_RATE} Hz"))
    if audio_format.num_channels > _MAX_USUAL_CHANNELS:
        remarks.append(("many_channels", f"{audio_format.num_channels} channels; averaged to one"))
    clipped = float(np.mean(np.abs(waveform) >= _FULL_SCALE))
    if clipped > _MAX_CLIPPED:
        remarks.append(("clipped", f"{clipped:.1%} of the samples are at full scale; used as it is"))
    missing_s = (declared_s or 0.0) - len(waveform) / SAMPLING_RATE
    if declared_s is not None and missing_s > max(_DURATION_TOLERANCE_S, _DURATION_TOLERANCE * declared_s):
        detail = f"declared {declared_s:.3f} s, but it ends after {declared_s - missing_s:.3f} s; used to its end"
        remarks.append(("duration_differs", detail))
    return remarks
