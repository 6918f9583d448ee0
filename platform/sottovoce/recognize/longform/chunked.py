"""Windows cut where nobody speaks, decoded side by side, and joined in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sottovoce.audio.voice_activity import Span
from sottovoce.recognize.longform.reader import SpokenLanguage
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment
from sottovoce.recognize.longform.window import WindowRequest, read_segments, unheard_rest
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, WindowResult

_LONGEST_SILENCE_S = 2.0  # inside a window; more would be decoded for nothing, and silence invites inventions (guess)


def plan_windows(
    recording: Recording, speech: Iterable[Span], *, window_samples: int, before_samples: int, after_samples: int
) -> Iterator[Span]:
    """Gather speech into windows, each as soon as it is full.

    Neighbours share no sample, and every sample of speech is in a window.

    Args:
        recording: where speech longer than a window may be cut.
        speech: spans in order, without margins.
        window_samples: the longest window.
        before_samples: kept before speech, where there is room.
        after_samples: kept after speech, where there is room.

    Yields:
        Spans of windows, in order.
    """
    before, after = (min(margin, window_samples // 4) for margin in (before_samples, after_samples))
    longest = window_samples - before - after
    window: Span | None = None
    free_from = 0  # the first sample that no window has
    for start, end in _cut_long(recording, speech, longest=longest):
        if (
            window is not None
            and start - window[1] <= _LONGEST_SILENCE_S * SAMPLING_RATE
            and end - window[0] <= longest
        ):
            window = window[0], end
            continue
        if window is not None:
            free_until = (window[1] + start) // 2
            yield _with_margins(window, before, after, free_from, free_until)
            free_from = min(window[1] + after, free_until)
        window = start, end
    if window is not None:
        yield _with_margins(window, before, after, free_from, recording.num_samples)


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
        # Threads that ask for windows and that take results share only these two; append and popleft are atomic.
        self._chunks: deque[_Chunk] = deque()
        self._again: deque[WindowRequest] = deque()
        self._is_alone = False

    @property
    def language(self) -> str | None:
        """The one asked for, or the one of the first window with text."""
        return self._language.code

    def next_window(self) -> WindowRequest | None:
        """Give the next window; while the language is unknown, one at a time."""
        if not self._language.is_known and self._is_alone:
            return None
        request = self._again.popleft() if self._again else self._next_planned()
        if request is None:
            return None
        self._is_alone = not self._language.is_known
        language = self._language.code if self._language.is_known else None
        return replace(request, options=replace(request.options, language=language))

    def take(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        """Read a window's result, in any order, and give what is known from the beginning on without a gap."""
        self._language.hear(result)
        self._is_alone = False
        chunk = next(chunk for chunk in self._chunks if any(_is_same(request, one) for one in chunk.waiting))
        rest = unheard_rest(request, result, self._recording)
        chunk.waiting = [one for one in chunk.waiting if not _is_same(request, one)] + rest
        self._again.extend(rest)
        if not rest or rest[0].start > request.start:
            chunk.segments[request.start] = read_segments(request, result)
        return self._pop_known()

    def _next_planned(self) -> WindowRequest | None:
        span = next(self._windows, None)
        if span is None:
            return None
        request = WindowRequest(start=span[0], end=span[1], options=self._options)
        self._chunks.append(_Chunk([request]))
        return request

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


def _cut_long(recording: Recording, speech: Iterable[Span], *, longest: int) -> Iterator[Span]:
    """Cut spans that no window holds at their quietest places."""
    for first, end in speech:
        start = first
        while end - start > longest:
            cut = recording.find_pause(start + longest // 2, start + longest)
            yield start, cut
            start = cut
        yield start, end


def _with_margins(window: Span, before: int, after: int, free_from: int, free_until: int) -> Span:
    return max(free_from, window[0] - before, 0), max(window[1], min(window[1] + after, free_until))
