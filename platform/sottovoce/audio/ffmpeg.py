"""Blocks of samples from the containers FFmpeg's libraries read through PyAV: m4a, mp4, webm, aac, wma and more.

Only the given bytes are ever read: formats are an allow-list without playlists, and no protocol is open.
Shapes: N samples per channel in a block, C channels.
"""

import io
from collections.abc import Iterator

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from sottovoce.errors import AudioDecodeError

_FORMATS = "mov,matroska,webm,aac,asf,avi,flv,mpegts,mpeg,mp3,ogg,wav,w64,aiff,caf,amr,ac3,eac3,ape,wv,tta,flac"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
_INDEXED = ("mov", "matroska")  # containers whose seeks and declared durations are exact
_PREROLL_S = 0.2  # s decoded and dropped after a seek; Opus asks for 0.08, AAC for two frames
_TRUNCATION_S = 0.5  # s an intact file may fall short of its declared duration (guess: covers encoder padding)
_FAULTS = (av.FFmpegError, ValueError, IndexError, OverflowError, EOFError, AttributeError)
"""What PyAV raises on damaged bytes; AttributeError is its answer to a stream without a decoder."""


def read_ffmpeg(data: bytes, *, source: str, start_s: float) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Decode the first audio stream frame by frame from ``start_s`` to the end.

    Args:
        data: the container's bytes.
        source: name for messages.
        start_s: first second wanted; reached by seeking where the container has an index.

    Yields:
        Sampling rate in Hz, and (N, C) float32.

    Raises:
        AudioDecodeError: not a container of the allow-list, no audio in it, damaged or truncated.
    """
    try:
        with av.open(io.BytesIO(data), mode="r", options=_OPTIONS, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioDecodeError(source, "it has no audio stream")
            yield from _read_stream(container, container.streams.audio[0], source=source, start_s=start_s)
    except _FAULTS as error:
        if isinstance(error, AudioDecodeError):
            raise
        raise AudioDecodeError(source, "its format is unknown or its data damaged") from error


def _read_stream(
    container: InputContainer, stream: AudioStream, *, source: str, start_s: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    is_indexed = container.format.name.startswith(_INDEXED)
    declared_s = _declared_duration_s(container, stream) if is_indexed else None
    if is_indexed and start_s > _PREROLL_S:
        container.seek(int((start_s - _PREROLL_S) * 1_000_000))
    origin_s = float((stream.start_time or 0) * (stream.time_base or 0))
    to_float = AudioResampler(format="flt")  # one plane: PyAV reads past the frame's eight plane pointers otherwise
    position_s = 0.0
    for decoded in container.decode(stream):
        for frame in to_float.resample(decoded):
            time_s = _time_s(frame, origin_s, otherwise=position_s)
            position_s = time_s + frame.samples / frame.sample_rate
            num_dropped = max(0, round((start_s - time_s) * frame.sample_rate)) if start_s else 0
            block = frame.to_ndarray().reshape(frame.samples, -1)[num_dropped:]
            if len(block):
                yield frame.sample_rate, np.ascontiguousarray(block, dtype=np.float32)
    if declared_s is not None and position_s + _TRUNCATION_S < declared_s:
        raise AudioDecodeError(source, f"truncated: {position_s:.2f} of {declared_s:.2f} s are there")
    if start_s and position_s <= start_s:
        raise AudioDecodeError(source, f"start_s {start_s:g} lies beyond its end")


def _time_s(frame: AudioFrame, origin_s: float, *, otherwise: float) -> float:
    return otherwise if frame.time is None else frame.time - origin_s


def _declared_duration_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Give what the container says of this stream, or None where it says nothing about audio alone."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1_000_000
    return None
