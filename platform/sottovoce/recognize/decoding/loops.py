"""Texts that repeat one phrase without end, as Whisper writes after speech it does not understand."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.plausibility import compression_ratio
from sottovoce.schema import DecodeOptions

_NUM_TOKENS = 48
_LONGEST_PHRASE = 16
_EVERY = 8  # tokens; looking costs about as much as a tenth of a step (guess, untested)

IsLoop: TypeAlias = Callable[[Sequence[int]], bool]
"""Function that says of a text so far whether it repeats itself without end."""


def loop_rule(options: DecodeOptions, number: int, vocabulary: Vocabulary) -> IsLoop | None:
    """Return the rule that ends a window's text early at its temperature ``number``; None without another temperature.

    Such a text would be refused at its end, after up to 224 tokens, and generated again at the next temperature. It is
    refused now once its last 48 tokens are one phrase of at most 16 tokens again and again, and it has the compression
    ratio for which it would be refused. Whisper's reference decoder writes it to its end.
    """
    threshold = options.compression_ratio_threshold
    if threshold is None or number + 1 >= len(options.temperatures):
        return None

    def is_loop(token_ids: Sequence[int]) -> bool:
        if len(token_ids) < _NUM_TOKENS or len(token_ids) % _EVERY:
            return False
        text_ids = vocabulary.kinds.text_of(token_ids)  # times never repeat themselves
        return _repeats_phrase(text_ids) and compression_ratio(vocabulary.text(text_ids)) > threshold

    return is_loop


def _repeats_phrase(text_ids: Sequence[int]) -> bool:
    last = np.array(text_ids[-_NUM_TOKENS:])
    if len(last) < _NUM_TOKENS:
        return False
    return any(np.array_equal(last[length:], last[:-length]) for length in range(1, _LONGEST_PHRASE + 1))
