"""Synthesize sentences in which the time of every word is known."""

import random
from collections.abc import Sequence

import numpy as np

from sottovoce.demo.grammar import load_grammar, write_sentence
from sottovoce.demo.speech import Voice, speak_words
from sottovoce.schema import SAMPLING_RATE, Waveform
from sottovoce.words.timed_speech import TimedPiece, TimedSpeech

_GAP_S = (0.1, 0.5)  # before each sentence
_MAX_SENTENCES = 3


def speak_timed(
    num_windows: int, *, voices: Sequence[str], max_s: float, seed: int, grammar: str = "sentences"
) -> list[TimedSpeech]:
    """Synthesize windows of one to three sentences each, with pauses before them.

    Args:
        num_windows: number of windows.
        voices: each window uses a random one, with random rate, pitch and pauses between words.
        max_s: duration of the longest window [s].
        seed: of the texts and voices; samples may differ a little between processes, see demo/speech.py.
        grammar: name of one of the package's grammars.

    Returns:
        Windows whose pieces are words, or several joined words.
    """
    generator, symbols = random.Random(seed), load_grammar(grammar)
    windows: list[TimedSpeech] = []
    while len(windows) < num_windows:
        voice = Voice(
            name=generator.choice(voices),
            words_per_minute=generator.randint(130, 220),
            pitch=generator.randint(25, 75),
            pitch_range=generator.randint(20, 80),
            word_gap=generator.choice((0, 0, 0, 1, 3, 8)),
        )
        texts = [write_sentence(symbols, generator) for _ in range(generator.randint(1, _MAX_SENTENCES))]
        windows += _speak(texts, voice, generator, max_s=max_s)
    return windows


def _speak(texts: Sequence[str], voice: Voice, generator: random.Random, *, max_s: float) -> list[TimedSpeech]:
    """Synthesize as many texts as fit; return nothing if the first does not fit or espeak-ng left out a word of it."""
    parts: list[Waveform] = []
    pieces: list[TimedPiece] = []
    for text in texts:
        waveform, words = speak_words(text, voice)
        gap = np.zeros(round(generator.uniform(*_GAP_S) * SAMPLING_RATE), dtype=np.float32)
        offset = sum(map(len, parts)) + len(gap)
        is_whole = " ".join(word.text for word in words) == text
        if not is_whole or offset + len(waveform) > max_s * SAMPLING_RATE:
            break
        parts += [gap, waveform]
        offset_s = offset / SAMPLING_RATE
        pieces += [TimedPiece(word.text, offset_s + word.start_s, offset_s + word.end_s) for word in words]
    return [TimedSpeech(np.concatenate(parts), tuple(pieces))] if parts else []
