"""Synthesize speech with espeak-ng, through the shared library in the espeakng-loader wheel.

The library has global state: one synthesizer per process. Part of the state outlives a call (the flutter of a voice
continues), so the samples of a text depend a little on what was synthesized before. A process that synthesizes the same
sequence of texts gets the same samples.
"""

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import espeakng_loader
import numpy as np
import soxr

from sottovoce.errors import ConfigError
from sottovoce.schema import SAMPLING_RATE, Waveform

_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback
_UTF8 = 1  # espeakCHARS_UTF8
_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7  # espeak_PARAMETER
_LIST_TERMINATED, _WORD_EVENT = 0, 1  # espeak_EVENT_TYPE
_SILENCE_LEVEL = 0.005  # of full scale, as in demo/pool.py: espeak-ng writes exact zeros around speech

TRAINING_VOICES = (
    "en-us", "en-us+f2", "en-us+m3", "en-us+linda", "en-us+david", "en-us+Andy", "en-us+paul", "en-us+klatt4",
    "en-us-nyc+m6", "en-us-nyc+f1", "en+f3", "en+m7", "en+steph", "en+edward", "en-gb-x-rp+f4",
    "en-gb-x-rp+m1", "en-gb-scotland+m2", "en-gb-scotland+f2", "en-gb-x-gbclan+m4", "en-gb-x-gbcwmd+f1",
    "en-029+m5", "en-029+belinda",
)  # fmt: skip
"""Accent and variant of the voices micro is trained on."""

UNSEEN_VOICES = ("en-us+f5", "en+m8", "en-us+john", "en-029+f3")
"""Voices that training does not use, for measurements."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """The settings of the synthesizer for one sentence."""

    name: str
    words_per_minute: int = 170
    pitch: int = 50
    """0 to 99."""
    pitch_range: int = 50
    """0 (monotone) to 99."""
    word_gap: int = 0
    """Extra pause between words, in 10 ms."""


@dataclass(frozen=True)
class SpokenWord:
    """A word, or several that espeak-ng joins as in ``of the``, and its time."""

    text: str
    """As in the text, with its punctuation."""
    start_s: float
    end_s: float
    """End of its sound, without the pause after it."""


def speak(text: str, voice: Voice) -> Waveform:
    """Synthesize one text.

    Returns:
        (S,) float32 in [-1, 1], mono, 16 000 Hz.

    Raises:
        ConfigError: espeak-ng has no such voice.
    """
    return speak_words(text, voice)[0]


def speak_words(text: str, voice: Voice) -> tuple[Waveform, tuple[SpokenWord, ...]]:
    """Synthesize one text, with the time of each of its words.

    Returns:
        (S,) float32 in [-1, 1], mono, 16 000 Hz; and the words in order, which together form the text.

    Raises:
        ConfigError: espeak-ng has no such voice.
    """
    library = _library()
    if library.handle.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise ConfigError(f"espeak-ng has no voice {voice.name!r}; list them with espeak-ng --voices=en")
    settings = {
        _RATE: voice.words_per_minute,
        _PITCH: voice.pitch,
        _RANGE: voice.pitch_range,
        _WORD_GAP: voice.word_gap,
    }
    for parameter, value in settings.items():
        library.handle.espeak_SetParameter(parameter, value, 0)
    library.blocks.clear()
    library.words.clear()
    encoded = text.encode() + b"\0"
    library.handle.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, _UTF8, None, None)
    library.handle.espeak_Synchronize()
    pcm = np.concatenate(library.blocks) if library.blocks else np.zeros(0, dtype=np.int16)
    waveform = pcm.astype(np.float32) / np.float32(32_768)
    words = _spoken_words(text, waveform, library.words, sampling_rate=library.sampling_rate)
    return np.asarray(soxr.resample(waveform, library.sampling_rate, SAMPLING_RATE), dtype=np.float32), words


def _spoken_words(
    text: str, waveform: Waveform, events: list[tuple[int, int]], *, sampling_rate: int
) -> tuple[SpokenWord, ...]:
    """Match events to the words between spaces; a word without an event belongs to the word before it.

    Args:
        text: the synthesized text.
        waveform: (S,) at the library's sampling rate.
        events: character, from 0, and sample at which a word begins; events inside a word are ignored.
        sampling_rate: of the waveform.
    """
    samples = dict(reversed(events))  # of two events at one character, the first counts
    begins = [match.start() for match in re.finditer(r"\S+", text) if match.start() in samples]
    loud = np.flatnonzero(np.abs(waveform) > _SILENCE_LEVEL)
    words = []
    for begin, end in pairwise([*begins, len(text)]):
        first, last = samples[begin], samples.get(end, len(waveform))
        sound = loud[(loud >= first) & (loud < last)]
        if sound.size:
            words.append(
                SpokenWord(text[begin:end].strip(), int(sound[0]) / sampling_rate, int(sound[-1] + 1) / sampling_rate)
            )
    return tuple(words)


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h: positions count characters from 1; samples count over the whole text."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class _Library:
    """The loaded shared library, and the blocks and words that its callback has received."""

    def __init__(self) -> None:
        self.handle = ctypes.CDLL(espeakng_loader.get_library_path())
        self.blocks: list[np.ndarray[tuple[int], np.dtype[np.int16]]] = []
        self.words: list[tuple[int, int]] = []
        self.sampling_rate = int(
            self.handle.espeak_Initialize(_RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
        )
        if self.sampling_rate <= 0:
            raise ConfigError("espeak-ng did not start; reinstall the espeakng-loader package")
        self.handle.espeak_ng_SetRandSeed(ctypes.c_long(0))  # otherwise breath would depend on the time of day
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = signature(self._receive)  # keep a reference: the library has only a bare pointer
        self.handle.espeak_SetSynthCallback(self._callback)

    def _receive(
        self, samples: "ctypes._Pointer[ctypes.c_short]", num_samples: int, events: "ctypes._Pointer[_Event]"
    ) -> int:
        if samples and num_samples > 0:
            self.blocks.append(np.ctypeslib.as_array(samples, shape=(num_samples,)).copy())
        index = 0
        while events and events[index].type != _LIST_TERMINATED:
            if events[index].type == _WORD_EVENT:
                self.words.append((events[index].text_position - 1, events[index].sample))
            index += 1
        return 0


@cache
def _library() -> _Library:
    return _Library()
