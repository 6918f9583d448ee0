"""Windows cut where nobody speaks, decoded side by side, and joined in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from threading import Lock

from sottovoce.audio.voice_activity import Span
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment
from sottovoce.recognize.longform.window import SpokenLanguage, WindowRequest, read_segments, unheard_rest
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, WindowResult

LONGEST_SILENCE_S = 2.0  # inside a window; more would be decoded for nothing, and silence invites inventions (guess)


def plan_windows(
    recording: Recording,
    speech: Iterable[Span],
    *,
    window_samples: int,
    shortest_samples: int,
    before_samples: int,
    after_samples: int,
) -> Iterator[Span]:
    """Gather speech into windows, each as soon as it is full.

    Neighbours share no sample, and every sample of speech is in a window. Speech that no window holds is cut in the
    longest pause that leaves a window full enough.

    Args:
        recording: where speech may be cut.
        speech: spans in order, without margins.
        window_samples: the longest window.
        shortest_samples: the shortest that is cut off longer speech.
        before_samples: kept before speech, where there is room.
        after_samples: kept after speech, where there is room.

    Yields:
        Spans of windows, in order.
    """
    before, after = (min(margin, window_samples // 4) for margin in (before_samples, after_samples))
    longest = window_samples - before - after
    shortest = min(shortest_samples, longest // 2)
    free_from = 0  # the first sample that no window has
    window: Span | None = None
    for start, end in speech:
        if window is not None and start - window[1] > LONGEST_SILENCE_S * SAMPLING_RATE:
            last = min(window[1] + after, start)
            yield max(free_from, window[0] - before), last
            free_from, window = last, None
        window = (start if window is None else window[0]), end
        while window[1] - window[0] > longest:
            cut = recording.find_pause(window[0] + shortest, window[0] + longest)
            yield max(free_from, window[0] - before), cut
            free_from, window = cut, (cut, window[1])
    if window is not None:
        yield max(free_from, window[0] - before), min(window[1] + after, recording.num_samples)


@dataclass
class _Chunk:
    """A planned window and those that came of it, in the recording's order."""

    waiting: list[WindowRequest]
    segments: dict[int, list[Segment]] = field(default_factory=dict)
    """Of each request that is done, by its first sample."""

    def pop_known(self) -> list[Segment]:
        """Take the segments out that stand before everything that is still awaited."""
        limit = min((request.start for request in self.waiting), default=None)
        known = sorted(start for start in self.segments if limit is None or start < limit)
        return [segment for start in known for segment in self.segments.pop(start)]


class ChunkedReader:
    """Reads planned windows, as many at a time as anyone asks for; see ``Reader``."""

    def __init__(self, recording: Recording, options: DecodeOptions, windows: Iterator[Span]) -> None:
        """Take the plan.

        Args:
            recording: what is read.
            options: of every window.
            windows: each no longer than the model's context; read as windows are asked for.
        """
        self._recording = recording
        self._options = options
        self._windows = windows
        self._language = SpokenLanguage(options.language)
        self._chunks: deque[_Chunk] = deque()
        self._again: deque[WindowRequest] = deque()
        self._is_alone = False
        self._lock = Lock()  # over everything but the plan, which only one thread reads

    @property
    def language(self) -> str | None:
        """The one asked for, or the one of the first window with text."""
        return self._language.code

    def next_window(self) -> WindowRequest | None:
        """Give the next window; while the language is unknown, one at a time."""
        with self._lock:
            if not self._language.is_known and self._is_alone:
                return None
            if self._again:
                return self._prepare(self._again.popleft())
        span = next(self._windows, None)  # without the lock: it looks for speech, and results need not wait for that
        if span is None:
            return None
        with self._lock:
            request = WindowRequest(start=span[0], end=span[1], options=self._options)
            self._chunks.append(_Chunk([request]))
            return self._prepare(request)

    def take(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        """Read a window's result, in any order, and give what is known from the beginning on without a gap."""
        with self._lock:
            return self._read(request, result)

    def _prepare(self, request: WindowRequest) -> WindowRequest:
        """Say what language a window is in, where that is known."""
        self._is_alone = not self._language.is_known
        language = self._language.code if self._language.is_known else None
        return replace(request, options=replace(request.options, language=language))

    def _read(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        self._language.hear(result)
        self._is_alone = False
        chunk = next(chunk for chunk in self._chunks if any(_is_same(request, one) for one in chunk.waiting))
        rest = unheard_rest(request, result, self._recording)
        chunk.waiting = [one for one in chunk.waiting if not _is_same(request, one)] + rest
        self._again.extend(rest)
        if not rest or rest[0].start > request.start:
            chunk.segments[request.start] = read_segments(request, result)
        return self._pop_known()

    def _pop_known(self) -> list[Segment]:
        known: list[Segment] = []
        while self._chunks:
            known += self._chunks[0].pop_known()
            if self._chunks[0].waiting:
                break
            self._chunks.popleft()
        return known


def _is_same(one: WindowRequest, other: WindowRequest) -> bool:
    """Say whether two requests are for the same stretch; the language may have become known between them."""
    return (one.start, one.end) == (other.start, other.end)
