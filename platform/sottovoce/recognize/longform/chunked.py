"""The chunked algorithm: windows are cut in pauses, decoded side by side, and joined in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from threading import Lock

from sottovoce.audio.voice_activity import Span
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment
from sottovoce.recognize.longform.window import SpokenLanguage, WindowRequest, read_segments, unheard_rest
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, WindowResult

LONGEST_SILENCE_S = 2.0
"""Longer silence is left out where it can be: models invent words in it, or take it for the end of speech (guess)."""
_CLEAR_PAUSE_S = 0.5  # a shorter pause is looked for in the sound: the ends of detected speech are 0.2 s late


def plan_windows(
    recording: Recording,
    speech: Iterable[Span],
    *,
    window_samples: int,
    shortest_samples: int,
    before_samples: int,
    after_samples: int,
    least_speech_samples: int = 0,
) -> Iterator[Span]:
    """Gather speech into windows, and yield each one as soon as it is full.

    Windows share no sample, and every sample of speech is in a window. Speech that does not fit into one window is cut
    in the longest pause that leaves the window long enough.

    Args:
        recording: used to find pauses within a span of speech.
        speech: spans in order, without margins.
        window_samples: the longest window.
        shortest_samples: the shortest window that is cut off longer speech.
        before_samples: kept before speech if there is room.
        after_samples: kept after speech if there is room.
        least_speech_samples: silence ends a window if it is longer than 2 s and the window has so much speech.

    Yields:
        Spans of windows, in order.
    """
    before, after = (min(margin, window_samples // 4) for margin in (before_samples, after_samples))
    longest = window_samples - before - after
    shortest = min(shortest_samples, longest // 2)
    free_from = 0  # the first sample that is in no window
    spans: list[Span] = []  # of the next window
    for span in speech:
        is_apart = bool(spans) and span[0] - spans[-1][1] > LONGEST_SILENCE_S * SAMPLING_RATE
        if is_apart and sum(end - start for start, end in spans) >= least_speech_samples:
            last = min(spans[-1][1] + after, span[0])
            yield max(free_from, spans[0][0] - before), last
            free_from, spans = last, []
        spans.append(span)
        while spans[-1][1] - spans[0][0] > longest:
            first = spans[0][0]
            end, spans = _cut(recording, spans, first + shortest, first + longest)
            last = min(end + after, spans[0][0])
            yield max(free_from, first - before), last
            free_from = last
    if spans:
        yield max(free_from, spans[0][0] - before), min(spans[-1][1] + after, recording.num_samples)


def _cut(recording: Recording, spans: list[Span], low: int, high: int) -> tuple[int, list[Span]]:
    """Cut speech in the longest of its pauses that reach into [low, high].

    Returns:
        Where the window's speech ends, and the spans after it.
    """
    pauses = [(spans[index][1], spans[index + 1][0], index + 1) for index in range(len(spans) - 1)]
    inside = [pause for pause in pauses if pause[0] <= high and pause[1] >= low]
    if not inside or max(end - start for start, end, _ in inside) < _CLEAR_PAUSE_S * SAMPLING_RATE:
        cut = recording.find_pause(low, high)
        return cut, [(max(start, cut), end) for start, end in spans if end > cut]
    start, end, index = max(inside, key=lambda pause: (pause[1] - pause[0], pause[0]))
    rest = spans[index:]
    if end - start > LONGEST_SILENCE_S * SAMPLING_RATE:
        return start, rest
    middle = min(max((start + end) // 2, low), high)
    return middle, [(middle, rest[0][1]), *rest[1:]]


@dataclass
class _Chunk:
    """A planned window and the windows cut out of it, in the recording's order."""

    waiting: list[WindowRequest]
    segments: dict[int, list[Segment]] = field(default_factory=dict)
    """Of each finished request, by its first sample."""

    def pop_known(self) -> list[Segment]:
        """Remove and return the segments that precede all pending requests."""
        limit = min((request.start for request in self.waiting), default=None)
        known = sorted(start for start in self.segments if limit is None or start < limit)
        return [segment for start in known for segment in self.segments.pop(start)]


class ChunkedReader:
    """Reader of planned windows, any number of them at a time; see ``Reader``."""

    def __init__(self, recording: Recording, options: DecodeOptions, windows: Iterator[Span]) -> None:
        """Start with a plan.

        Args:
            recording: the recording to read.
            options: the options of every window.
            windows: planned spans, each no longer than the model's context; consumed as windows are requested.
        """
        self._recording = recording
        self._options = options
        self._windows = windows
        self._language = SpokenLanguage(options.language)
        self._chunks: deque[_Chunk] = deque()
        self._again: deque[WindowRequest] = deque()
        self._is_alone = False
        self._lock = Lock()  # guards everything but the plan, which only one thread reads

    @property
    def language(self) -> str | None:
        """The requested one, or that of the first window with text."""
        return self._language.code

    def next_window(self) -> WindowRequest | None:
        """Return the next window; one at a time while the language is unknown."""
        with self._lock:
            if not self._language.is_known and self._is_alone:
                return None
            if self._again:
                return self._prepare(self._again.popleft())
        span = next(self._windows, None)  # without the lock: finding speech takes time, and results need not wait
        if span is None:
            return None
        with self._lock:
            request = WindowRequest(start=span[0], end=span[1], options=self._options)
            self._chunks.append(_Chunk([request]))
            return self._prepare(request)

    def take(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        """Accept a window's result, in any order; return the segments that now follow without a gap."""
        with self._lock:
            return self._read(request, result)

    def _prepare(self, request: WindowRequest) -> WindowRequest:
        """Set the language of a window if it is known."""
        self._is_alone = not self._language.is_known
        language = self._language.code if self._language.is_known else None
        return replace(request, options=replace(request.options, language=language))

    def _read(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        self._language.update(result)
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
    """Whether two requests are for the same span; the language may have become known between them."""
    return (one.start, one.end) == (other.start, other.end)
