"""Speech whose times are known: utterances joined with gaps, so that one ends and the next begins where we put them.

Shapes: S samples.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sottovoce.audio.decode import read_audio
from sottovoce.audio.pauses import sound_span
from sottovoce.errors import AudioError
from sottovoce.schema import SAMPLING_RATE, Utterance, Waveform, WordTime

_MAX_PIECES = 4
_GAP_S = (0.1, 0.4)  # between utterances; at the ends too


@dataclass(frozen=True)
class TimedPiece:
    """Words said in one go, and where they sound."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class TimedSpeech:
    """One window of pieces."""

    waveform: Waveform
    pieces: tuple[TimedPiece, ...]
    """In order; their texts, joined with spaces, are what is said."""
    language: str = "en"


def join_utterances(
    utterances: Sequence[Utterance], *, max_s: float, max_examples: int, seed: int = 0
) -> list[TimedSpeech]:
    """Join up to four utterances of one language at a time, with gaps of silence.

    Left out are utterances without text, translations (their words follow no sound), those that cannot be decoded,
    which the training itself has counted, and those too long to stand with another.

    Args:
        utterances: taken in this order; those in front are used where not all are needed.
        max_s: the longest window.
        max_examples: windows wanted.
        seed: of the gaps.

    Returns:
        Windows of at least two pieces; as many as the utterances give.
    """
    generator = random.Random(seed)
    examples: list[TimedSpeech] = []
    window = _Window("", max_s=max_s, generator=generator)
    for utterance in utterances:
        if len(examples) == max_examples:
            break
        waveform = _read(utterance)
        if waveform is None:
            continue
        if not window.takes(waveform, utterance.language):
            examples += window.finish()
            window = _Window(utterance.language, max_s=max_s, generator=generator)
        window.add(waveform, utterance.text.strip())
    return [*examples, *window.finish()][:max_examples]


def word_errors(words: Sequence[WordTime], speech: TimedSpeech) -> list[float] | None:
    """Compare the times of words with the known ones.

    Args:
        words: of the speech's text, in order.
        speech: whose pieces are known.

    Returns:
        Seconds by which each piece's first word begins too late, and its last ends too late, piece after piece; None
        where words and pieces do not fit together.
    """
    errors: list[float] = []
    place = 0
    for piece in speech.pieces:
        first, text = place, ""
        wanted = "".join(piece.text.split())
        while place < len(words) and len(text) < len(wanted):
            text += "".join(words[place].text.split())
            place += 1
        if text != wanted:
            return None
        errors += [words[first].start_s - piece.start_s, words[place - 1].end_s - piece.end_s]
    return errors if place == len(words) else None


class _Window:
    """A window that is being filled."""

    def __init__(self, language: str, *, max_s: float, generator: random.Random) -> None:
        self._language = language
        self._max_samples = int(max_s * SAMPLING_RATE)
        self._generator = generator
        self._pieces: list[TimedPiece] = []
        self._parts = [self._gap()]

    def takes(self, waveform: Waveform, language: str) -> bool:
        """Tell whether an utterance and the gap after it fit."""
        room = self._max_samples - self._num_samples - round(_GAP_S[1] * SAMPLING_RATE)
        return language == self._language and len(self._pieces) < _MAX_PIECES and len(waveform) <= room

    def add(self, waveform: Waveform, text: str) -> None:
        start_s, end_s = sound_span(waveform)
        offset_s = self._num_samples / SAMPLING_RATE
        self._pieces.append(TimedPiece(text, offset_s + start_s, offset_s + end_s))
        self._parts += [waveform, self._gap()]

    def finish(self) -> list[TimedSpeech]:
        """Give the window, where there are two pieces or more."""
        if len(self._pieces) < 2:
            return []
        return [TimedSpeech(np.concatenate(self._parts), tuple(self._pieces), self._language)]

    @property
    def _num_samples(self) -> int:
        return sum(map(len, self._parts))

    def _gap(self) -> Waveform:
        return np.zeros(round(self._generator.uniform(*_GAP_S) * SAMPLING_RATE), dtype=np.float32)


def _read(utterance: Utterance) -> Waveform | None:
    if not utterance.text.strip() or utterance.task == "translate":
        return None
    try:
        return read_audio(utterance.audio, start_s=utterance.start_s, duration_s=utterance.duration_s)
    except (AudioError, FileNotFoundError):
        return None
