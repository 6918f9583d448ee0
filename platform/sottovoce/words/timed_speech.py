"""Make speech with known times: join utterances with gaps, so that their starts and ends are known.

Shapes: S samples.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import sound_span
from sottovoce.errors import AudioError
from sottovoce.schema import SAMPLING_RATE, Utterance, Waveform, WordTime

_MAX_PIECES = 4
_GAP_S = (0.1, 0.4)  # between utterances; at the ends too
_MAX_READ = 8  # utterances read per requested window, twice as many as fit: many unreadable ones end the search


@dataclass(frozen=True)
class TimedPiece:
    """The text of one utterance, and the span of its sound."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class TimedSpeech:
    """One window of joined utterances."""

    waveform: Waveform
    pieces: tuple[TimedPiece, ...]
    """In order; their texts, joined with spaces, are the transcript."""
    language: str = "en"


def join_utterances(
    utterances: Sequence[Utterance], *, max_s: float, max_examples: int, seed: int = 0
) -> list[TimedSpeech]:
    """Join up to four utterances of one language at a time, with gaps of silence.

    Skipped are utterances without text, translations (their words do not follow the sound), those that cannot be
    decoded (training has counted them), and those too long to be joined with another. The plan uses declared
    durations, so that only joined utterances are decoded.

    Args:
        utterances: used in this order, from the first on.
        max_s: the longest window.
        max_examples: the most windows to make.
        seed: of the gaps.

    Returns:
        Windows of at least two pieces.
    """
    max_samples = int(max_s * SAMPLING_RATE)
    examples: list[TimedSpeech] = []
    num_read = 0
    joinable = _find_joinable(utterances, max_samples=max_samples)
    for window in _plan_windows(joinable, max_samples=max_samples, generator=random.Random(seed)):
        if len(examples) == max_examples or num_read >= _MAX_READ * max_examples:
            break
        num_read += len(window.utterances)
        speech = _join(window)
        examples += [] if speech is None else [speech]
    return examples


def word_errors(words: Sequence[WordTime], speech: TimedSpeech) -> list[float] | None:
    """Compare the times of words with the known ones.

    Args:
        words: timed words of the speech's transcript, in order.
        speech: speech with known times.

    Returns:
        For each piece in turn: the seconds by which its first word begins too late, and by which its last word ends too
        late. None if the words are not those of the pieces.
    """
    errors: list[float] = []
    index = 0
    for piece in speech.pieces:
        first, text = index, ""
        wanted = "".join(piece.text.split())
        while index < len(words) and len(text) < len(wanted):
            text += "".join(words[index].text.split())
            index += 1
        if text != wanted:
            return None
        errors += [words[first].start_s - piece.start_s, words[index - 1].end_s - piece.end_s]
    return errors if index == len(words) else None


@dataclass(frozen=True)
class _Window:
    """Utterances to join, and the samples of silence around them: one gap more than utterances."""

    utterances: tuple[Utterance, ...] = ()
    gaps: tuple[int, ...] = ()

    @property
    def num_samples(self) -> int:
        return sum(self.gaps) + sum(map(_count_samples, self.utterances))


def _find_joinable(utterances: Sequence[Utterance], *, max_samples: int) -> list[Utterance]:
    """Return the untranslated utterances with text that fit into a window with the shortest one of their language."""
    spoken = [one for one in utterances if one.text.strip() and one.task != "translate"]
    shortest: dict[str, int] = {}
    for one in spoken:
        shortest[one.language] = min(_count_samples(one), shortest.get(one.language, max_samples))
    room = max_samples - round((2 * _GAP_S[0] + _GAP_S[1]) * SAMPLING_RATE)  # the most that ``_fits`` allows
    return [one for one in spoken if _count_samples(one) + shortest[one.language] <= room]


def _plan_windows(utterances: Sequence[Utterance], *, max_samples: int, generator: random.Random) -> Iterator[_Window]:
    """Group consecutive utterances that fit together, by their durations; drop groups of one."""

    def sample_gap() -> int:
        return round(generator.uniform(*_GAP_S) * SAMPLING_RATE)

    window = _Window(gaps=(sample_gap(),))
    for utterance in utterances:
        if not _fits(window, utterance, max_samples=max_samples):
            if len(window.utterances) > 1:
                yield window
            window = _Window(gaps=(sample_gap(),))
        window = _Window((*window.utterances, utterance), (*window.gaps, sample_gap()))
    if len(window.utterances) > 1:
        yield window


def _fits(window: _Window, utterance: Utterance, *, max_samples: int) -> bool:
    """Whether an utterance and the longest gap fit into a window that is not empty."""
    if not window.utterances:
        return False
    longer = _Window((*window.utterances, utterance), (*window.gaps, round(_GAP_S[1] * SAMPLING_RATE)))
    is_alike = utterance.language == window.utterances[0].language
    return is_alike and len(longer.utterances) <= _MAX_PIECES and longer.num_samples <= max_samples


def _join(window: _Window) -> TimedSpeech | None:
    """Read and join a window's utterances; None if fewer than two can be read."""
    pieces: list[TimedPiece] = []
    parts = [_silence(window.gaps[0])]
    for utterance, gap in zip(window.utterances, window.gaps[1:], strict=True):
        waveform = _read(utterance)
        if waveform is None:
            continue
        start_s, end_s = sound_span(waveform)
        offset_s = sum(map(len, parts)) / SAMPLING_RATE
        pieces.append(TimedPiece(utterance.text.strip(), offset_s + start_s, offset_s + end_s))
        parts += [waveform, _silence(gap)]
    if len(pieces) < 2:
        return None
    return TimedSpeech(np.concatenate(parts), tuple(pieces), window.utterances[0].language)


def _count_samples(utterance: Utterance) -> int:
    return round(utterance.duration_s * SAMPLING_RATE)


def _silence(num_samples: int) -> Waveform:
    return np.zeros(num_samples, dtype=np.float32)


def _read(utterance: Utterance) -> Waveform | None:
    try:
        waveform = read_audio(utterance.audio, start_s=utterance.start_s, duration_s=utterance.duration_s)
        return waveform[: _count_samples(utterance)]  # resampling may add one sample
    except (AudioError, FileNotFoundError):
        return None
