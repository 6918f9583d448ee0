"""Recordings of numbered words, and listeners that hear them with the faults a Whisper has."""

from dataclasses import dataclass, replace

import numpy as np

from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.window import WindowRequest
from sottovoce.schema import SAMPLING_RATE, WindowResult, WindowSegment, WordTime
from sottovoce.words.word_times import fit_segments

_LOWEST, _STEP = 200, 5  # int16 levels: a word is a constant whose level is its number; all above -60 dBFS


@dataclass(frozen=True)
class SpokenNumbers:
    """Words 0, 1, 2, ... and when each is said."""

    recording: Recording
    spans: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        return " ".join(map(str, range(len(self.spans))))


def say(num_words: int, *, seed: int, longest_pause_s: float = 0.8) -> SpokenNumbers:
    """Say words of 0.2 to 0.8 s with pauses before, between and after them."""
    random = np.random.default_rng(seed)
    parts, spans, place = [], [], 0
    for number in range(num_words):
        pause = int(random.uniform(0.25, longest_pause_s) * SAMPLING_RATE)
        length = int(random.uniform(0.2, 0.8) * SAMPLING_RATE)
        parts += [np.zeros(pause, np.int16), np.full(length, _LOWEST + _STEP * number, np.int16)]
        spans.append((place + pause, place + pause + length))
        place += pause + length
    parts.append(np.zeros(int(random.uniform(0.05, longest_pause_s) * SAMPLING_RATE), np.int16))
    return SpokenNumbers(Recording(np.concatenate(parts)), tuple(spans))


class Listener:
    """Hears the words of a window; one that the window's edge cuts is heard as ``cut``."""

    def __init__(self, spoken: SpokenNumbers) -> None:
        self.spoken = spoken
        self.requests: list[WindowRequest] = []

    def hear(self, request: WindowRequest) -> WindowResult:
        """Write no times."""
        words = self._note(request)
        duration_s = (request.end - request.start) / SAMPLING_RATE
        text = "".join(f" {word}" for word, _, _ in words)
        segments = (WindowSegment(0.0, duration_s, text, (1,) * len(words)),) if words else ()
        return result(segments)

    def _note(self, request: WindowRequest) -> list[tuple[str, float, float]]:
        """Remember a request, and give its words."""
        self.requests.append(request)
        return self._words(request)

    def _words(self, request: WindowRequest) -> list[tuple[str, float, float]]:
        """Return a window's words with their times in it."""
        words = []
        for number, (start, end) in enumerate(self.spoken.spans):
            if end <= request.start or start >= request.end:
                continue
            is_whole = request.start <= start and end <= request.end
            first, last = max(start, request.start) - request.start, min(end, request.end) - request.start
            words.append((str(number) if is_whole else "cut", first / SAMPLING_RATE, last / SAMPLING_RATE))
        return words


class WordListener(Listener):
    """Writes no times, but has its words timed: its segment lasts from its first word to its last.

    Words are found to end half-way, as where their ends are quiet: also one that the window's end cuts.
    """

    def hear(self, request: WindowRequest) -> WindowResult:
        whole = super().hear(request)
        words = tuple(
            WordTime(word, start_s, (start_s + end_s) / 2, 1.0) for word, start_s, end_s in self._words(request)
        )
        return replace(whole, words=words, segments=fit_segments(whole.segments, [words]))


class TimingListener(Listener):
    """Writes each word as a segment, and leaves one that the window's end cuts to the next window."""

    def hear(self, request: WindowRequest) -> WindowResult:
        words = self._note(request)
        segments = tuple(
            WindowSegment(start_s, end_s, f" {word}", (1000, 1, 1001))
            for word, start_s, end_s in words
            if word != "cut"
        )
        is_cut = bool(words) and words[-1][0] == "cut"
        return result(segments, heard_s=(segments[-1].end_s if segments else 0.0) if is_cut else None)


class StuckListener(Listener):
    """Writes times that never get on, wherever it may write any."""

    def hear(self, request: WindowRequest) -> WindowResult:
        if not request.options.timestamps:
            return super().hear(request)
        self._note(request)
        return result((), heard_s=0.0)


class BusyListener(Listener):
    """Has room for a few words in a window, and loses the others."""

    room = 6

    def hear(self, request: WindowRequest) -> WindowResult:
        whole = super().hear(request)
        words = whole.text.split()
        if len(words) <= self.room:
            return whole
        text = "".join(f" {word}" for word in words[: self.room])
        (segment,) = whole.segments
        full = tuple(range(request.options.max_new_tokens))
        return result((WindowSegment(0.0, segment.end_s, text, full),), token_ids=full)


def result(
    segments: tuple[WindowSegment, ...], *, heard_s: float | None = None, token_ids: tuple[int, ...] = (), **known
) -> WindowResult:
    return WindowResult(
        text="".join(segment.text for segment in segments).strip(),
        token_ids=token_ids or tuple(token for segment in segments for token in segment.token_ids),
        segments=segments,
        heard_s=heard_s,
        **{"language": "en", "avg_logprob": -0.1, "no_speech_prob": 0.0, **known},
    )
