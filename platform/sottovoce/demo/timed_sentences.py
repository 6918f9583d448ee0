"""Synthetic sentences whose every word has a known time."""

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
    """Speak windows of one to three sentences each, with pauses before them.

    Args:
        num_windows: how many.
        voices: one is drawn for each window, with its rate, pitch and pauses between words.
        max_s: the longest window.
        seed: of the texts and voices; espeak-ng's flutter makes samples differ a little between processes.
        grammar: one of the package's.

    Returns:
        Windows whose pieces are words, or several that run together.
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
    """Speak as many of the texts as fit; nothing where the first does not, or where espeak-ng left a word out."""
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
