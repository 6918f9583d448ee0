"""One window of a recording: what is asked of a recognizer, what its answer says, and what it leaves to be heard."""

from dataclasses import dataclass, replace
from typing import Protocol

from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment
from sottovoce.schema import MAX_LABEL_TOKENS, SAMPLING_RATE, DecodeOptions, WindowResult, WordTime

MIN_WINDOW_SAMPLES = SAMPLING_RATE // 10  # of 0.1 s: in less no word is heard
_LEAST_ROOM = (
    MAX_LABEL_TOKENS // 2 - 4
)  # tokens that a decoder has for text behind the longest prompt and a prefix of 4
_MAX_COMPRESSION_RATIO = 2.4  # Whisper's threshold: text above it repeats itself, and is not long because much is said


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """A stretch of a recording to be decoded."""

    start: int
    """First sample."""
    end: int
    """Last-plus-one sample."""
    options: DecodeOptions
    is_final: bool = False
    """It has been cut out of another window to be decoded again, and is not cut once more."""

    @property
    def start_s(self) -> float:
        """Seconds since the recording's beginning."""
        return self.start / SAMPLING_RATE


def read_segments(request: WindowRequest, result: WindowResult) -> list[Segment]:
    """Give what a window says as segments in the recording's time."""
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
    """Give what must be decoded again of a window, so that no word of it is lost.

    Args:
        request: the window.
        result: its answer, whose segments stand unless the rest begins with the window.
        recording: where a window may be cut.

    Returns:
        Nothing for a window that was heard to its end; the rest of one whose last segment is unfinished; all of it,
        without times, where the times do not get on; two parts where the text fills the decoder.
    """
    if result.heard_s is not None:
        heard = request.start + round(result.heard_s * SAMPLING_RATE)
        if heard - request.start < MIN_WINDOW_SAMPLES:
            return [replace(request, options=replace(request.options, timestamps=False))]
        return [replace(request, start=heard)] if request.end - heard >= MIN_WINDOW_SAMPLES else []
    fills_decoder = len(result.token_ids) >= min(request.options.max_new_tokens, _LEAST_ROOM)
    if request.is_final or not fills_decoder or result.compression_ratio > _MAX_COMPRESSION_RATIO:
        return []
    quarter = (request.end - request.start) // 4
    if quarter < MIN_WINDOW_SAMPLES:
        return []
    middle = recording.find_pause(request.start + quarter, request.end - quarter)
    return [replace(request, end=middle, is_final=True), replace(request, start=middle, is_final=True)]


def _later(word: WordTime, offset_s: float) -> WordTime:
    return replace(word, start_s=offset_s + word.start_s, end_s=offset_s + word.end_s)


UNHEARD_LANGUAGE = "en"
"""Named where nobody speaks, and any answer is a guess."""


class Reader(Protocol):
    """One recording on its way to a transcript; knows no engine, no network and no clock.

    Windows may be decoded side by side and their results taken in any order; segments come in the recording's order.
    The recording has been read when no window comes and no result is awaited.
    """

    @property
    def language(self) -> str | None:
        """ISO 639-1: the one asked for, or the one detected; None before that."""

    def next_window(self) -> WindowRequest | None:
        """Give the next window to decode, or None where a result is needed first, or where nothing is left.

        It may take a while (finding speech), and another thread may take results meanwhile. One thread at a time asks
        for windows, and one takes results.
        """

    def take(self, request: WindowRequest, result: WindowResult) -> list[Segment]:
        """Read a window's result, and give the segments that are now known."""


class SpokenLanguage:
    """The language of a whole recording: the one asked for, or what the first window with text is in."""

    def __init__(self, given: str | None) -> None:
        self._given = given
        self._guess: str | None = None
        self.is_known = given is not None

    @property
    def code(self) -> str | None:
        """ISO 639-1; a guess from silence while nothing was heard."""
        return self._given or self._guess

    def hear(self, result: WindowResult) -> None:
        """Settle on the language of the first window that has text, as openai-whisper does on the first of all."""
        if self.is_known:
            return
        self._guess = result.language
        self.is_known = bool(result.segments)
