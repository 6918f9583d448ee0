"""Blocks of samples from the containers FFmpeg's libraries read through PyAV: ogg, m4a, mp4, webm, aac, wma and more.

Only the given bytes are ever read: the allowed formats contain no playlists, and no protocol is allowed.
Shapes: N samples per channel in a block, C channels.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import cast

import av
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from sottovoce.audio.encoded import Encoded
from sottovoce.audio.media_time import EXACT_TIMES, MediaClock, PlacedFrame, make_silence
from sottovoce.audio.mp3_header import read_mp3_length
from sottovoce.audio.waveform import AudioFormat, Block
from sottovoce.errors import AudioDecodeError

_FORMATS = "mov,matroska,webm,aac,asf,avi,flv,mpegts,mpeg,mp3,ogg,wav,w64,aiff,caf,amr,ac3,eac3,ape,wv,tta,flac"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
_INDEXED = (*EXACT_TIMES, "ogg")  # containers whose seeks are exact
_PREROLL_S = 0.2  # s decoded and dropped after a seek; Opus asks for 0.08, AAC for two frames
_TRUNCATION_S = 0.5  # s an intact file may fall short of its declared duration (guess: covers encoder padding)
_FAULTS = (av.FFmpegError, ValueError, IndexError, OverflowError, EOFError, AttributeError)
"""Errors that PyAV raises on damaged bytes; AttributeError for a stream without a decoder."""

_BLOCK_SAMPLES = 1 << 16  # per channel: frames are joined to about 1.4 s, since each array has a fixed cost
_PLAIN = ("flt", "fltp", "s16", "s16p")  # sample formats numpy can take as they are
_PCM = re.compile(r"pcm_[a-z]+(\d+)")  # as in pcm_s24le; of other codecs PyAV does not say how they are stored
_MAX_PLANES = 7  # PyAV 18 counts planes up to a null pointer; eight planes have none after them, and it crashes


def read_ffmpeg(
    file: Encoded, *, source: str, start_s: float, duration_s: float | None
) -> Iterator[tuple[AudioFormat, Block]]:
    """Decode the requested part of one audio stream; of several, the default one.

    Times are those of the file: sound that begins after the video has silence before it, and so has sound after a
    gap in the timestamps of mp4, mov, mkv and webm. All of one silence is one block, which takes no memory.

    Args:
        file: the container.
        source: name for messages.
        start_s: first second wanted; reached by seeking where the container has an index.
        duration_s: seconds wanted; to the end when None.

    Yields:
        The format that the container declares, and (N, C) samples.

    Raises:
        AudioDecodeError: not a container of the allow-list, no audio in it, damaged or truncated.
    """
    try:
        with av.open(file, mode="r", options=_OPTIONS, metadata_errors="ignore") as container:
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream):
                raise AudioDecodeError(source, "it has no audio stream")
            audio_format = _describe(container, stream)
            declared_s = _declared_mp3_s(file, stream) if container.format.name == "mp3" else None
            frames = _read_stream(container, stream, source=source, start_s=start_s, declared_s=declared_s)
            for rate, block in _join(frames, duration_s=duration_s):
                yield replace(audio_format, sampling_rate=rate, num_channels=block.shape[1]), block
    except _FAULTS as error:
        if isinstance(error, AudioDecodeError):
            raise
        raise AudioDecodeError(source, "its format is unknown, or its data is damaged or cut off") from error


def _read_stream(
    container: InputContainer, stream: AudioStream, *, source: str, start_s: float, declared_s: float | None
) -> Iterator[PlacedFrame]:
    """Yield the frames that reach beyond ``start_s``; a file is truncated that ends before what it declares."""
    clock = MediaClock(container, stream)
    declared_s = declared_s or _declared_end_s(container, stream, clock)
    is_sought = start_s > _PREROLL_S and container.format.name.startswith(_INDEXED)
    if is_sought:
        container.seek(int((clock.origin_s + start_s - _PREROLL_S) * 1_000_000))
    clock.want_from(start_s, is_sought=is_sought)
    to_float = AudioResampler(format="flt")  # of one plane
    for decoded in _decode_packets(container, stream):
        is_plain = decoded.format.name in _PLAIN and decoded.layout.nb_channels <= _MAX_PLANES
        for frame in (decoded,) if is_plain else to_float.resample(decoded):
            placed = clock.place(frame)
            if placed is not None:
                yield placed
    position_s = clock.position_s
    if declared_s is not None and position_s + _TRUNCATION_S < declared_s:
        raise AudioDecodeError(source, f"truncated: {position_s:.2f} of {declared_s:.2f} s are there")
    if start_s and position_s <= start_s:
        raise AudioDecodeError(source, f"start_s {start_s:g} lies beyond its end")


def _decode_packets(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decode packet by packet; skip a damaged last packet, since a stream may be cut off anywhere.

    If the container declares a duration, the caller notices what is missing by it.
    """
    fault: Exception | None = None
    num_frames = 0
    for packet in container.demux(stream):
        if fault is not None and packet.size:
            raise fault
        try:
            frames = packet.decode()
        except _FAULTS as error:
            fault, frames = error, []
        num_frames += len(frames)
        yield from frames
    if fault is not None and not num_frames:
        raise fault


def _join(frames: Iterator[PlacedFrame], *, duration_s: float | None) -> Iterator[tuple[int, Block]]:
    """Join frames to blocks, each with its sampling rate, and stop reading once ``duration_s`` is reached."""
    fifo = AudioFifo()
    rate = num_before = 0
    num_left = inf
    for placed in frames:
        if not rate:
            rate, num_before = placed.frame.sample_rate, placed.num_before
            num_left = inf if duration_s is None else num_before + round(duration_s * rate)
        for block in _add(fifo, placed, num_wanted=min(_BLOCK_SAMPLES, num_left)):
            yield rate, block[num_before:]
            num_before, num_left = 0, num_left - len(block)
        if num_left <= 0:
            return
    if fifo.samples:
        yield rate, _take(fifo)[num_before:]


def _add(fifo: AudioFifo, placed: PlacedFrame, *, num_wanted: float) -> Iterator[Block]:
    """Add a frame; yield what lies before its silence, the silence, and all samples once they are enough."""
    if placed.num_silent:
        if fifo.samples:
            yield _take(fifo)
        yield make_silence(placed)
    placed.frame.pts = None  # a fifo refuses frames whose times do not follow exactly, and formats that change
    fifo.write(placed.frame)
    if fifo.samples >= num_wanted:
        yield _take(fifo)


def _take(fifo: AudioFifo) -> Block:
    """Return all samples of a fifo that is not empty."""
    frame = fifo.read()
    assert frame is not None
    array = cast("Block", frame.to_ndarray())  # (C, N), or (1, N * C) where channels alternate
    return array.T if frame.format.is_planar else array.reshape(frame.samples, -1)


def _describe(container: InputContainer, stream: AudioStream) -> AudioFormat:
    codec = stream.codec_context
    pcm = _PCM.match(codec.name)
    return AudioFormat(
        sampling_rate=codec.sample_rate,
        num_channels=codec.channels,
        bits=int(pcm[1]) if pcm else None,
        container=container.format.name.partition(",")[0],
    )


def _declared_end_s(container: InputContainer, stream: AudioStream, clock: MediaClock) -> float | None:
    """Return the time at which this stream ends, or None if the container declares none for the audio alone."""
    if not container.format.name.startswith(EXACT_TIMES):
        return None
    if stream.duration and stream.time_base:
        return clock.late_s + float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1_000_000
    return None


def _declared_mp3_s(file: Encoded, stream: AudioStream) -> float | None:
    """Return the duration in an mp3's tag; FFmpeg's libraries estimate one where there is no tag, and tell neither."""
    position = file.tell()
    length = read_mp3_length(file)
    file.seek(position)  # where the libraries read on
    return None if length is None else length.num_samples / stream.codec_context.sample_rate
