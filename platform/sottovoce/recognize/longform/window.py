"""One window of a recording: its request, its segments and its rest; the interface of a reader."""

from dataclasses import dataclass, replace
from typing import Protocol

from sottovoce.audio.voice_activity import USUAL_THRESHOLD
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment
from sottovoce.schema import MAX_LABEL_TOKENS, SAMPLING_RATE, DecodeOptions, WindowResult, WordTime

UNHEARD_LANGUAGE = "en"
"""The language reported for a recording without speech."""
MIN_WINDOW_SAMPLES = SAMPLING_RATE // 10  # 0.1 s: less contains no word
# tokens of text that fit a decoder behind the longest prompt and a prefix of 4
_LEAST_ROOM = MAX_LABEL_TOKENS // 2 - 4
_LEAST_PASSED_SAMPLES = 2 * SAMPLING_RATE  # after a window's text: a shorter rest holds no word behind a pause
_LEAST_SPEECH_SAMPLES = SAMPLING_RATE // 4  # about the shortest word
_LEAST_PAUSE_SAMPLES = SAMPLING_RATE // 2  # before speech that was passed over: nearer, it is the last word's end
_SILENCE_S = 0.2  # that ends speech
_MAX_COMPRESSION_RATIO = 2.4  # Whisper's threshold: text above it repeats itself, and its length shows nothing


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """A span of a recording to decode."""

    start: int
    """First sample."""
    end: int
    """Last-plus-one sample."""
    options: DecodeOptions
    is_final: bool = False
    """Whether the window was cut out of another one to be decoded again; it is not cut once more."""

    @property
    def start_s(self) -> float:
        """Start in seconds since the recording's beginning."""
        return self.start / SAMPLING_RATE


def read_segments(request: WindowRequest, result: WindowResult) -> list[Segment]:
    """Return the segments of a window's result, with times since the recording's beginning."""
    return [
        Segment(
            seek_s=request.start_s,
            start_s=request.start_s + segment.start_s,
            end_s=request.start_s + segment.end_s,
            text=segment.text,
            token_ids=segment.token_ids,
            language=result.language,
            language_probability=result.language_probability,
            temperature=result.temperature,
            avg_logprob=result.avg_logprob,
            compression_ratio=result.compression_ratio,
            no_speech_prob=result.no_speech_prob,
            words=tuple(_later(word, request.start_s) for word in segment.words),
            token_logprobs=segment.token_logprobs,
        )
        for segment in result.segments
    ]


def unheard_rest(request: WindowRequest, result: WindowResult, recording: Recording) -> list[WindowRequest]:
    """Return the parts of a window that must be decoded again, so that no word is lost.

    Args:
        request: the window.
        result: its result. Its segments count unless the rest begins at the window's start.
        recording: used to find pauses for cuts.

    Returns:
        Nothing for a window that was transcribed to its end; the rest of one whose last segment is unfinished, or whose
        words end seconds before speech does; all of it, without timestamps, if the timestamps do not advance; two parts
        if the text fills the decoder.
    """
    if result.heard_s is not None:
        heard = request.start + round(result.heard_s * SAMPLING_RATE)
        if heard - request.start < MIN_WINDOW_SAMPLES:
            return [replace(request, options=replace(request.options, timestamps=False))]
        return [replace(request, start=heard)] if request.end - heard >= MIN_WINDOW_SAMPLES else []
    fills_decoder = len(result.token_ids) >= min(request.options.max_new_tokens, _LEAST_ROOM)
    if not fills_decoder:
        return _passed_over(request, result, recording)
    if request.is_final or result.compression_ratio > _MAX_COMPRESSION_RATIO:
        return []
    quarter = (request.end - request.start) // 4
    if quarter < MIN_WINDOW_SAMPLES:
        return []
    middle = recording.find_pause(request.start + quarter, request.end - quarter)
    return [replace(request, end=middle, is_final=True), replace(request, start=middle, is_final=True)]


def _passed_over(request: WindowRequest, result: WindowResult, recording: Recording) -> list[WindowRequest]:
    """Return the end of a window from the speech on that its text leaves out.

    After a long pause Whisper often takes the window for finished: it writes a timestamp and ends. openai-whisper and
    faster-whisper believe it. Only word times show it: the last timestamp may lie seconds before the last word.
    """
    if not request.options.timestamps or not result.segments or not result.segments[-1].words:
        return []
    last = result.segments[-1]
    start = request.start + round(max(last.end_s, (last.written_s or (0.0, 0.0))[1]) * SAMPLING_RATE)
    if request.end - start < _LEAST_PASSED_SAMPLES or recording.is_silent(start, request.end):
        return []
    spans = recording.find_speech(start, request.end, threshold=USUAL_THRESHOLD, min_silence_s=_SILENCE_S)
    spoken = [span for span in spans if span[0] - start >= _LEAST_PAUSE_SAMPLES]
    if sum(end - begin for begin, end in spoken) < _LEAST_SPEECH_SAMPLES:
        return []
    return [replace(request, start=spoken[0][0] - _LEAST_PAUSE_SAMPLES // 2)]


def _later(word: WordTime, offset_s: float) -> WordTime:
    return replace(word, start_s=offset_s + word.start_s, end_s=offset_s + word.end_s)


class Reader(Protocol):
    """The state of transcribing one recording, independent of engine, network and clock.

    Windows may be decoded side by side and their results passed in any order; segments come in the recording's order.
    The recording is finished when there is no next window and no result is pending.
    """

    @property
    def language(self) -> str | None:
        """ISO 639-1 code, requested or detected; None before that."""

    def next_window(self) -> WindowRequest | None:
        """Return the next window to decode; None if a result is needed first or nothing is left.

        The call may take a while (finding speech), and another thread may call ``take`` meanwhile. One thread at a time
        calls ``next_window``, and one calls ``take``.
        """

    def take(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        """Accept a window's result, and return the segments that are complete now."""


class SpokenLanguage:
    """The language of a whole recording: the requested one, or that of the first window with text."""

    def __init__(self, given: str | None) -> None:
        self._given = given
        self._detected: str | None = None
        self.is_known = given is not None

    @property
    def code(self) -> str | None:
        """ISO 639-1; unreliable until a window with text was decoded."""
        return self._given or self._detected

    def update(self, result: WindowResult) -> None:
        """Keep the language of the first window with text; openai-whisper keeps that of the first window."""
        if self.is_known:
            return
        self._detected = result.language
        self.is_known = bool(result.segments)
