"""Encode speech with a real codec and decode it, as a telephone or a messenger does.

FFmpeg's libraries encode through PyAV (audiomentations has no encoder), and ``decode_audio`` decodes: training gets the
same samples as serving does from such a file.

Shapes: S samples.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import av
import numpy as np
import soxr
from av.audio.stream import AudioStream

from sottovoce.audio.decode import decode_audio
from sottovoce.audio.waveform import to_pcm
from sottovoce.errors import ConfigError
from sottovoce.schema import SAMPLING_RATE, Waveform

Codec: TypeAlias = Literal["mp3", "opus", "aac", "g722", "mulaw", "alaw", "amr_nb"]
"""Music and messengers (mp3, opus, aac), wide-band telephony (g722), land lines (mulaw, alaw), old mobiles (amr_nb)."""


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """Settings of FFmpeg's libraries for one codec."""

    name: str
    container: str
    sampling_rate: int = SAMPLING_RATE
    """Rate [Hz] the codec runs at."""
    bit_rates_kbps: tuple[float, float] | None = None
    """Lowest and highest bit rate of the encoder for mono at its rate; None if it has only one."""
    delay_samples: int = 0
    """Delay of the result, in samples at 16 000 Hz, that the container does not declare; measured on speech."""
    takes_float: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


_ENCODERS: dict[Codec, _Encoder] = {
    "mp3": _Encoder(
        name="libmp3lame",
        container="mp3",
        bit_rates_kbps=(8, 160),
        takes_float=True,
        options={"compression_level": "7"},  # LAME's -q 7: 33 instead of 60 ms for 10 s of speech
    ),
    "opus": _Encoder(
        name="libopus",
        container="ogg",
        bit_rates_kbps=(6, 256),
        takes_float=True,
        options={"compression_level": "5"},  # complexity, as on telephones: 27 instead of 83 ms for 10 s of speech
    ),
    "aac": _Encoder(name="aac", container="mp4", bit_rates_kbps=(8, 96), takes_float=True),
    "g722": _Encoder(name="g722", container="wav", delay_samples=22),
    "mulaw": _Encoder(name="pcm_mulaw", container="wav", sampling_rate=8_000),
    "alaw": _Encoder(name="pcm_alaw", container="wav", sampling_rate=8_000),
    "amr_nb": _Encoder(
        name="amr_nb", container="amr", sampling_rate=8_000, bit_rates_kbps=(4.75, 12.2), delay_samples=79
    ),
}

_MIN_SAMPLES = SAMPLING_RATE // 10  # shorter speech is padded to it: some encoders write no file of one frame


def require_encoder(codec: Codec) -> None:
    """Check that this machine can encode with a codec.

    Raises:
        ConfigError: PyAV was built without its encoder.
    """
    try:
        av.Codec(_ENCODERS[codec].name, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise ConfigError(
            f"codec {codec!r} needs the encoder {_ENCODERS[codec].name!r}, which this build of PyAV lacks;"
            " leave it out of codecs, or install PyAV's own wheel"
        ) from error


def pass_through_codec(waveform: Waveform, codec: Codec, *, bit_rate_kbps: float) -> Waveform:
    """Encode and decode.

    Args:
        waveform: (S,) float32; clipped to [-1, 1].
        codec: name of the codec.
        bit_rate_kbps: clipped to the codec's range.

    Returns:
        (S,) float32, aligned with ``waveform`` within a millisecond.
    """
    encoder = _ENCODERS[codec]
    padded = np.pad(waveform, (0, max(0, _MIN_SAMPLES - len(waveform)) + encoder.delay_samples))
    decoded = decode_audio(_encode(np.clip(padded, -1.0, 1.0), encoder, bit_rate_kbps), source=f"speech as {codec}")
    in_time = decoded[encoder.delay_samples :][: len(waveform)]
    return np.pad(in_time, (0, len(waveform) - len(in_time)))


def _encode(waveform: Waveform, encoder: _Encoder, bit_rate_kbps: float) -> bytes:
    """Write (S,) in [-1, 1] as a file of the encoder's container."""
    if encoder.sampling_rate != SAMPLING_RATE:
        waveform = soxr.resample(waveform, SAMPLING_RATE, encoder.sampling_rate, quality="HQ")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=encoder.container) as container:
        stream = container.add_stream(
            encoder.name, rate=encoder.sampling_rate, layout="mono", options=dict(encoder.options)
        )
        assert isinstance(stream, AudioStream)
        stream.codec_context.thread_count = 1  # the caller decides how many cores to use
        if encoder.bit_rates_kbps:
            stream.codec_context.bit_rate = round(1_000 * float(np.clip(bit_rate_kbps, *encoder.bit_rates_kbps)))
        samples = waveform if encoder.takes_float else to_pcm(waveform)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt" if encoder.takes_float else "s16", layout="mono")
        frame.sample_rate = encoder.sampling_rate
        frame.pts = 0  # without it the container cannot say how many samples come before the first
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
