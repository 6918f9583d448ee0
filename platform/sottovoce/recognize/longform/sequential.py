"""Whisper's own algorithm: one window after the other, moved by timestamps and conditioned on the text before."""

from collections import deque
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from sottovoce.audio.voice_activity import Span
from sottovoce.recognize.decoding.plausibility import is_plausible
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

_SAMPLED_ABOVE = 0.5  # temperature: text sampled above it does not condition the next window, as in openai-whisper
_NUM_TRIALS = 3  # windows that are decoded both with and without the text before them
_ONSET_SAMPLES = SAMPLING_RATE // 4  # decoded again after a window without speech: a word may begin at its end
_LEAST_LENGTH = 0.8  # of the text without context: a model may be certain of an end that comes too early (guess)
_EDGE_S = 0.1  # words that end this close to a window's end may be cut by it (guess: shorter than a syllable)


@dataclass(frozen=True)
class SpeechDetection:
    """What counts as speech, and the margins around it in windows that end in pauses."""

    threshold: float
    """Probability above which a frame is speech."""
    before_samples: int = 0
    after_samples: int = 0


class SequentialReader:
    """Reader of one window after the other; see ``Reader``."""

    def __init__(
        self,
        recording: Recording,
        options: DecodeOptions,
        *,
        window_samples: int,
        shortest_samples: int,
        follow_text: bool,
        end_in_pauses: bool,
        detection: SpeechDetection | None = None,
    ) -> None:
        """Start at the beginning.

        Args:
            recording: the recording to read.
            options: the options of every window.
            window_samples: the longest window.
            shortest_samples: the shortest window that is cut in a pause.
            follow_text: condition each window on the text before it. The first windows are decoded without it, too: if
                that yields likelier or many more words, the model was not trained with context and loses or invents
                words with it, so it gets none from then on.
            end_in_pauses: end every window in a pause, for a model trained on whole utterances that does not notice
                an utterance cut by the window's end. Otherwise windows end in pauses only while the model generates no
                timestamps.
            detection: leave out windows without speech; None decodes everything but silence.
        """
        self._recording = recording
        self._options = options
        self._window_samples = window_samples
        self._shortest_samples = min(shortest_samples, window_samples // 2)
        self._follow_text = follow_text
        self._trials_left = _NUM_TRIALS
        self._with_text: tuple[WindowRequest, WindowResult] | None = None
        self._end_in_pauses = end_in_pauses
        self._detection = detection
        self._writes_times = True
        self._language = SpokenLanguage(options.language)
        self._position = 0
        self._previous_ids: tuple[int, ...] = ()
        self._again: deque[WindowRequest] = deque()
        # The owner of the state above: ``take`` while a result is pending, else ``next_window``. Each hands it over in
        # its last step, so that a thread that requests a window during ``take`` never sees a half-updated state.
        self._is_waiting = False

    @property
    def language(self) -> str | None:
        """The requested one, or that of the first window with text."""
        return self._language.code

    def next_window(self) -> WindowRequest | None:
        """Return the window that begins where the last one was transcribed to; None while a result is pending."""
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
        """Accept a window's result and move on to its unfinished rest, else to its end."""
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
        self._language.update(result)
        is_newest = request.start == self._position
        rest = self._rest(request, result)
        if rest and rest[0].start == request.start:  # its text does not count
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
        """Choose between a window's two results, and stop conditioning a model that does worse with context."""
        self._with_text = None
        self._trials_left -= 1
        is_whole = len(with_text.text) >= _LEAST_LENGTH * len(without_text.text)
        if (is_whole and with_text.avg_logprob >= without_text.avg_logprob) or with_text.text == without_text.text:
            return request, with_text
        self._follow_text, self._previous_ids = False, ()
        return replace(request, options=replace(request.options, previous_ids=())), without_text

    def _next_stretch(self) -> WindowRequest | None:
        """Return the next window that has to be decoded."""
        while self._recording.num_samples - self._position >= MIN_WINDOW_SAMPLES:
            end = self._find_end(self._position)
            spoken = self._find_spoken(self._position, end)
            if spoken is not None:
                self._position = spoken[0]
                return WindowRequest(start=spoken[0], end=spoken[1], options=self._options)
            half_way = (self._position + end + 1) // 2  # else a window shorter than the onset would never be passed
            self._position = end if end == self._recording.num_samples else max(half_way, end - _ONSET_SAMPLES)
        return None

    def _find_end(self, start: int) -> int:
        """Return the end of a window that begins at a sample."""
        end = start + self._window_samples
        if end >= self._recording.num_samples:
            return self._recording.num_samples
        return self._recording.find_pause(start + self._shortest_samples, end) if self._cuts_in_pauses else end

    def _find_spoken(self, start: int, end: int) -> Span | None:
        """Return the part of a span to decode; None if there is none.

        That is the whole span. If windows end in pauses, it begins with the first speech and ends before a silence
        longer than any between the utterances of training; the rest belongs to the next window.
        """
        if self._recording.is_silent(start, end):
            return None
        detection = self._detection
        if detection is None:
            return start, end
        speech = self._recording.find_speech(start, end, threshold=detection.threshold, min_silence_s=0.0)
        first = next(speech, None)
        if first is None or not self._end_in_pauses:
            return None if first is None else (start, end)
        start = max(start, first[0] - detection.before_samples)
        end = self._find_end(start)
        speech = self._recording.find_speech(start, end, threshold=detection.threshold, min_silence_s=0.0)
        for (_, silent_from), (silent_to, _) in pairwise(chain(speech, [(end, end)])):
            if silent_to - silent_from > LONGEST_SILENCE_S * SAMPLING_RATE:
                return start, silent_from + detection.after_samples
        return start, end

    @property
    def _cuts_in_pauses(self) -> bool:
        return self._end_in_pauses or not self._writes_times

    def _rest(self, request: WindowRequest, result: WindowResult) -> list[WindowRequest]:
        """Return what remains to be decoded of a window; see ``unheard_rest``.

        A window whose end may cut a word is decoded again up to a pause, if it must be decoded again or if it has one
        segment that lasts to the cut.
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
        """Keep the text that conditions the next window."""
        if not self._follow_text or result.temperature > _SAMPLED_ABOVE or self._failed(result):
            self._previous_ids = ()
        else:
            self._previous_ids += tuple(token for segment in segments for token in segment.token_ids)

    def _failed(self, result: WindowResult) -> bool:
        """Whether a text was kept though no temperature gave a plausible one: a model might repeat it for ever."""
        return len(self._options.temperatures) > 1 and not is_plausible(
            self._options,
            text=result.text,
            avg_logprob=result.avg_logprob,
            no_speech_prob=result.no_speech_prob,
        )


def _runs_on(request: WindowRequest, result: WindowResult) -> bool:
    """Whether a window is one segment that lasts to its end, as it is without timestamps."""
    # a text that was divided at its sentences counts as one segment, too
    written_s = {_written_s(segment) for segment in result.segments}
    if result.heard_s is not None or len(written_s) != 1:
        return False
    return written_s.pop()[1] >= (request.end - request.start) / SAMPLING_RATE - _EDGE_S


def _written_s(segment: WindowSegment) -> tuple[float, float]:
    """Return start and end by the model's timestamps, not by the first and last word."""
    return segment.written_s or (segment.start_s, segment.end_s)
