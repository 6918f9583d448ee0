"""Whisper's own algorithm: one window after the other, moved by what was heard, conditioned on the text before."""

from collections import deque
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from sottovoce.audio.voice_activity import Span
from sottovoce.recognize.longform.chunked import LONGEST_SILENCE_S
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment
from sottovoce.recognize.longform.window import (
    MIN_WINDOW_SAMPLES,
    SpokenLanguage,
    WindowRequest,
    read_segments,
    unheard_rest,
)
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, WindowResult, WindowSegment

_DRAWN_ABOVE = 0.5  # temperature: text drawn above it is no context to follow on from, as in openai-whisper
_NUM_TRIALS = 3  # windows that are decoded with and without the text before them
_ONSET_SAMPLES = SAMPLING_RATE // 4  # heard again after a window without a voice: a word may begin at its end
_LEAST_LENGTH = 0.8  # of the text without: a model may be certain of an end that comes too soon (guess)
_EDGE_S = 0.1  # words that last to this near a window's end may be cut by it (guess: shorter than a syllable)


@dataclass(frozen=True)
class Voices:
    """What counts as a voice, and what a window keeps around it where windows end in pauses."""

    threshold: float
    """Probability."""
    before_samples: int = 0
    after_samples: int = 0


class SequentialReader:
    """Reads a recording window by window; see ``Reader``."""

    def __init__(
        self,
        recording: Recording,
        options: DecodeOptions,
        *,
        window_samples: int,
        shortest_samples: int,
        follow_text: bool,
        end_in_pauses: bool,
        voices: Voices | None = None,
    ) -> None:
        """Start at the beginning.

        Args:
            recording: what is read.
            options: of every window.
            window_samples: the longest window.
            shortest_samples: the shortest that is cut in a pause.
            follow_text: whether a window's decoder reads the text before it. The first windows are decoded without it
                too: where that gives likelier or many more words, the model was not trained to follow a text, and falls
                silent or invents when it is given one, so it gets none from then on.
            end_in_pauses: end every window where nobody speaks, for a model that was trained on whole utterances and
                does not tell the one that a window's end cuts through. Otherwise windows end so only while the model
                writes no times.
            voices: leave windows out in which there is none; None decodes all but silence.
        """
        self._recording = recording
        self._options = options
        self._window_samples = window_samples
        self._shortest_samples = min(shortest_samples, window_samples // 2)
        self._follow_text = follow_text
        self._trials_left = _NUM_TRIALS
        self._with_text: tuple[WindowRequest, WindowResult] | None = None
        self._end_in_pauses = end_in_pauses
        self._voices = voices
        self._writes_times = True
        self._language = SpokenLanguage(options.language)
        self._position = 0
        self._previous_ids: tuple[int, ...] = ()
        self._again: deque[WindowRequest] = deque()
        # Whose the state above is: ``take``'s while a result is awaited, else ``next_window``'s. Each of them hands it
        # over with its last step: a thread that asks for a window while another takes a result finds nothing half done.
        self._is_waiting = False

    @property
    def language(self) -> str | None:
        """The one asked for, or the one of the first window with text."""
        return self._language.code

    def next_window(self) -> WindowRequest | None:
        """Give the window that begins where the last one was heard to; None while its result is awaited."""
        if self._is_waiting:
            return None
        request = self._again.popleft() if self._again else self._next_stretch()
        if request is None:
            return None
        language = self._language.code if self._language.is_known else None
        previous_ids = () if self._with_text else self._previous_ids
        options = replace(request.options, language=language, previous_ids=previous_ids)
        self._is_waiting = True
        return replace(request, options=options)

    def take(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        """Read a window's result and move on: to the unfinished rest of it, else to its end."""
        segments = self._read(request, result)
        self._is_waiting = False
        return segments

    def _read(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        if self._with_text is None and self._trials_left and request.options.previous_ids:
            self._with_text = request, result
            self._again.appendleft(request)
            return []
        if self._with_text is not None:
            request, result = self._judge(*self._with_text, without_text=result)
        self._language.hear(result)
        is_newest = request.start == self._position
        rest = self._rest(request, result)
        if rest and rest[0].start == request.start:  # what it says does not count
            self._again.extendleft(reversed(rest))
            self._position = rest[-1].end if is_newest else self._position
            return []
        if is_newest:
            self._position = rest[0].start if rest else request.end
        else:
            self._again.extendleft(reversed(rest))
        segments = read_segments(request, result)
        self._remember(result, segments)
        return segments

    def _judge(
        self, request: WindowRequest, with_text: WindowResult, *, without_text: WindowResult
    ) -> tuple[WindowRequest, WindowResult]:
        """Choose between a window's results, and stop giving text to a model that does worse with it."""
        self._with_text = None
        self._trials_left -= 1
        is_whole = len(with_text.text) >= _LEAST_LENGTH * len(without_text.text)
        if (is_whole and with_text.avg_logprob >= without_text.avg_logprob) or with_text.text == without_text.text:
            return request, with_text
        self._follow_text, self._previous_ids = False, ()
        return replace(request, options=replace(request.options, previous_ids=())), without_text

    def _next_stretch(self) -> WindowRequest | None:
        """Give the next window with any sound in it."""
        while self._recording.num_samples - self._position >= MIN_WINDOW_SAMPLES:
            end = self._find_end(self._position)
            spoken = self._find_spoken(self._position, end)
            if spoken is not None:
                self._position = spoken[0]
                return WindowRequest(start=spoken[0], end=spoken[1], options=self._options)
            half_way = (self._position + end + 1) // 2  # a window shorter than the onset would never be left
            self._position = end if end == self._recording.num_samples else max(half_way, end - _ONSET_SAMPLES)
        return None

    def _find_end(self, start: int) -> int:
        """Find where a window ends that begins at a sample."""
        end = start + self._window_samples
        if end >= self._recording.num_samples:
            return self._recording.num_samples
        return self._recording.find_pause(start + self._shortest_samples, end) if self._cuts_in_pauses else end

    def _find_spoken(self, start: int, end: int) -> Span | None:
        """Give what of a stretch is to be decoded, None where it is nothing.

        That is all of it, or, where windows end in pauses, what begins with the first voice and ends before a silence
        that a model for short utterances has never heard between two of them; what comes after is the next window's.
        """
        if self._recording.is_silent(start, end):
            return None
        voices = self._voices
        if voices is None:
            return start, end
        speech = self._recording.find_speech(start, end, threshold=voices.threshold, min_silence_s=0.0)
        first = next(speech, None)
        if first is None or not self._end_in_pauses:
            return None if first is None else (start, end)
        start = max(start, first[0] - voices.before_samples)
        end = self._find_end(start)
        speech = self._recording.find_speech(start, end, threshold=voices.threshold, min_silence_s=0.0)
        for (_, silent_from), (silent_to, _) in pairwise(chain(speech, [(end, end)])):
            if silent_to - silent_from > LONGEST_SILENCE_S * SAMPLING_RATE:
                return start, silent_from + voices.after_samples
        return start, end

    @property
    def _cuts_in_pauses(self) -> bool:
        return self._end_in_pauses or not self._writes_times

    def _rest(self, request: WindowRequest, result: WindowResult) -> list[WindowRequest]:
        """Give what is left to be heard of a window; see ``unheard_rest``.

        Where a window's end may cut a word, and the window must be decoded again or has one segment that runs on to
        the cut, it is decoded again up to a pause.
        """
        rest = unheard_rest(request, result, self._recording)
        is_cut = (
            not (request.is_final or self._cuts_in_pauses)
            and request.end - request.start == self._window_samples
            and request.end < self._recording.num_samples
        )
        runs_on = _runs_on(request, result)
        if result.segments:
            self._writes_times = not (runs_on and _written_s(result.segments[0])[0] == 0.0)
        if not is_cut or not (runs_on or (rest and rest[0].start == request.start)):
            return rest
        pause = self._recording.find_pause(request.start + self._shortest_samples, request.end)
        options = rest[0].options if rest else request.options
        return [replace(request, end=pause, options=options, is_final=True)]

    def _remember(self, result: WindowResult, segments: list[Segment]) -> None:
        """Keep what the next window follows on from."""
        if not self._follow_text or result.temperature > _DRAWN_ABOVE:
            self._previous_ids = ()
        else:
            self._previous_ids += tuple(token for segment in segments for token in segment.token_ids)


def _runs_on(request: WindowRequest, result: WindowResult) -> bool:
    """Say whether a window is one segment that lasts to its end, as it is where no times were written."""
    written_s = {
        _written_s(segment) for segment in result.segments
    }  # one also where a text was divided at its sentences
    if result.heard_s is not None or len(written_s) != 1:
        return False
    return written_s.pop()[1] >= (request.end - request.start) / SAMPLING_RATE - _EDGE_S


def _written_s(segment: WindowSegment) -> tuple[float, float]:
    """Give when the model says a segment starts and ends, and not when its first and last word do."""
    return segment.written_s or (segment.start_s, segment.end_s)
