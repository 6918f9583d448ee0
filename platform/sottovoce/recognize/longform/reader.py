"""What the two algorithms share: who drives a reader asks it for windows and tells it what they say."""

from typing import Protocol

from sottovoce.recognize.longform.segment import Segment
from sottovoce.recognize.longform.window import WindowRequest
from sottovoce.schema import WindowResult

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
