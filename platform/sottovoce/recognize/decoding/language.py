"""Which language is spoken in a window, and how sure the model is of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sottovoce.recognize.decoding.session import DecoderSession
from sottovoce.recognize.vocabulary import Vocabulary
from sottovoce.schema import DecodeOptions


@dataclass(frozen=True)
class SpokenLanguage:
    """The language of one window."""

    code: str
    """ISO 639-1."""
    probability: float | None = None
    """Among all languages, in [0, 1], where it was detected."""


def find_languages(
    session: DecoderSession, vocabulary: Vocabulary, options: Sequence[DecodeOptions]
) -> list[SpokenLanguage]:
    """Name the language of each window: the one that its options give, or the likeliest one."""
    codes = [option.language for option in options]
    given = [SpokenLanguage(code) for code in codes if code is not None]
    if len(given) == len(codes):
        return given
    detected = detect_languages(session, vocabulary, batch_size=len(codes))
    return [found if code is None else SpokenLanguage(code) for code, found in zip(codes, detected, strict=True)]


def detect_languages(session: DecoderSession, vocabulary: Vocabulary, *, batch_size: int) -> list[SpokenLanguage]:
    """Name the likeliest language of each of ``batch_size`` windows.

    Source: openai-whisper 20250625, detect_language: what follows the start token alone, without any prompt.
    """
    logits = session.start(np.full((batch_size, 1), vocabulary.start_id, dtype=np.int64))
    among = logits[:, 0, vocabulary.language_ids].astype(np.float64)
    weights = np.exp(among - among.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    best = probabilities.argmax(axis=1)
    return [
        SpokenLanguage(vocabulary.languages[index], float(row[index]))
        for index, row in zip(best, probabilities, strict=True)
    ]
