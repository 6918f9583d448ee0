"""Word times of what an engine wrote, from where its decoder looked.

Shapes: H heads, T tokens, P positions of sound.
"""

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.model.alignment import align_words
from sottovoce.model.word_tokens import split_words
from sottovoce.recognize.vocabulary import Vocabulary
from sottovoce.schema import MAX_LABEL_TOKENS, DecodeOptions, Waveform, WindowResult, WordTime


class AttentionSource(Protocol):
    """A batch of encoded windows whose cross-attention can be read."""

    def attend(self, row: int, token_ids: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read prefix, text and end token (T) for one window.

        Returns:
            Scores (H, T, P) of the alignment heads, and the probabilities (T - 1,) of the tokens from the second on.

        Raises:
            CheckpointError: alignment heads the decoder does not have.
            WordTimesUnavailableError: an engine without attention.
        """


def time_result(
    source: AttentionSource,
    row: int,
    result: WindowResult,
    option: DecodeOptions,
    *,
    waveform: Waveform,
    vocabulary: Vocabulary,
) -> WindowResult:
    """Add the words to a window's result where they were asked for.

    The decoder reads its own text again, without timestamp tokens, which attend to no sound of their own.

    Args:
        source: the encoded batch.
        row: of the window in it.
        result: what was written.
        option: how it was decoded.
        waveform: (S,) of the window.
        vocabulary: of the engine.
    """
    if not option.word_timestamps:
        return result
    return replace(result, words=tuple(_words(source, row, result, option, waveform=waveform, vocabulary=vocabulary)))


def _words(
    source: AttentionSource,
    row: int,
    result: WindowResult,
    option: DecodeOptions,
    *,
    waveform: Waveform,
    vocabulary: Vocabulary,
) -> list[WordTime]:
    prefix = vocabulary.prefix(result.language, replace(option, timestamps=False))
    room = MAX_LABEL_TOKENS - len(prefix) - 1  # a transcript that filled the decoder loses its last word's time
    text = [token for token in result.token_ids if token < vocabulary.end_id][:room]
    if not text:
        return []
    scores, probabilities = source.attend(row, [*prefix, *text, vocabulary.end_id])
    words = split_words(vocabulary.tokenizer, text, language=result.language)
    return align_words(scores, probabilities, words, prefix_length=len(prefix), waveform=waveform)
