"""Place decoded frames on the clock of their file: silence where sound begins late, and where timestamps jump.

Shapes: N samples per channel, C channels.
"""

from dataclasses import dataclass

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from sottovoce.audio.waveform import Block

EXACT_TIMES = ("mov", "matroska")  # containers whose durations and timestamps are exact; others' are often estimates
_JITTER_S = 0.1  # s a frame may be late without silence before it, or a codec's frame if that is longer (guess: covers
# encoders' delays, times in whole milliseconds, and browsers that record what arrives)

_PIECE_S = 60.0  # s; a file that begins later than this, and than it lasts, is a piece of a broadcast (guess)


@dataclass(frozen=True, kw_only=True)
class PlacedFrame:
    """A frame, and what surrounds it in the result."""

    frame: AudioFrame
    num_silent: int
    """Samples of silence before it."""
    num_before: int
    """Its own first samples, which lie before the part that is wanted."""


class MediaClock:
    """Counts the samples of one stream, and compares their number with the frames' times.

    Samples are never dropped to follow a timestamp: frames that lie too early follow the ones before them.
    """

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        """Find the file's zero.

        Args:
            container: the file; nothing of it is decoded.
            stream: the one that will be.
        """
        self._own_s = float((stream.start_time or 0) * (stream.time_base or 0))
        self.origin_s = _find_origin_s(container, self._own_s)
        """Timestamp of the result's zero [s]."""
        self._start_s = self._floor_s = 0.0
        self._fills_gaps = container.format.name.startswith(EXACT_TIMES)
        self._position_s: float | None = None

    @property
    def late_s(self) -> float:
        """How long after the file's zero its sound begins [s]."""
        return self._own_s - self.origin_s

    @property
    def position_s(self) -> float:
        """The time up to which samples and silence were counted [s], from the file's zero."""
        return self._position_s or 0.0

    def want_from(self, start_s: float, *, is_sought: bool) -> None:
        """Set the first second that is wanted, and whether the container was moved there."""
        self._start_s, self._floor_s = start_s, start_s if is_sought else 0.0

    def place(self, frame: AudioFrame) -> PlacedFrame | None:
        """Return where the frame lies, or None if it ends before the wanted part.

        Silence after a jump is only counted here: whoever reads must check its length before he makes it.
        """
        rate, frame_s = frame.sample_rate, frame.samples / frame.sample_rate
        is_first = self._position_s is None
        begins_s = self._floor_s if self._position_s is None else self._position_s
        time_s = begins_s if frame.time is None else frame.time - self.origin_s
        is_late = time_s - begins_s > (_JITTER_S if is_first else max(_JITTER_S, frame_s))
        num_silent = 0
        if is_late and (self._fills_gaps or (is_first and self.late_s > 0.0)):
            num_silent = max(0, round((time_s - max(begins_s, self._start_s)) * rate))
            begins_s = time_s
        elif is_first:
            begins_s = time_s
        self._position_s = begins_s + frame_s
        num_before = max(0, round((self._start_s - begins_s) * rate)) if self._start_s else 0
        if num_before >= frame.samples:
            return None
        return PlacedFrame(frame=frame, num_silent=num_silent, num_before=num_before)


def make_silence(placed: PlacedFrame) -> Block:
    """Return the (N, C) silence before a frame, of the type of its samples.

    Every sample is the same one in memory, however many a forged timestamp asks for.
    """
    frame = placed.frame
    dtype = np.int16 if frame.format.name.startswith("s16") else np.float32
    silence: Block = np.broadcast_to(np.zeros(1, dtype), (placed.num_silent, frame.layout.nb_channels))
    return silence


def _find_origin_s(container: InputContainer, own_s: float) -> float:
    """Return the timestamp that counts as zero: the file's own zero, or the time at which its first stream begins.

    An encoder's delay shifts the zero: of a plain audio file, the first sample is the first one of the result. A piece
    of a broadcast goes on counting from hours before.
    """
    videos = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    streams: list[AudioStream | VideoStream] = [*container.streams.audio, *videos]
    starts = [float(one.start_time * one.time_base) for one in streams if one.start_time is not None and one.time_base]
    first_s = min([own_s, *starts])
    is_whole = first_s < max(_PIECE_S, (container.duration or 0) / 1_000_000)
    if container.format.name.startswith(EXACT_TIMES) and is_whole:
        first_s = min(first_s, 0.0)
    return own_s if own_s - first_s <= _JITTER_S else first_s
