"""Decode windows with temperature fallback: an implausible text is generated again at the next temperature.

Shapes: B windows, T tokens.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count

from sottovoce.model.vocabulary import Vocabulary
from sottovoce.recognize.decoding.attempt import Attempt, WindowDecoder, is_search, num_texts
from sottovoce.recognize.decoding.plausibility import is_plausible
from sottovoce.recognize.decoding.session import TokenIds
from sottovoce.schema import DecodeOptions


def decode_with_fallback(
    decoder: WindowDecoder,
    prefix: TokenIds,
    options: Sequence[DecodeOptions],
    *,
    vocabulary: Vocabulary,
    max_rows: int,
) -> Iterator[dict[int, Attempt]]:
    """Decode each window at its first temperature, and implausible ones at the next, until a text is plausible.

    A plausible text is final at once, while other windows of the batch go on.

    Args:
        decoder: of the encoded batch.
        prefix: (B, T) tokens before the transcript.
        options: B, equal in ``timestamps``.
        vocabulary: the engine's.
        max_rows: texts generated at the same time if windows have several.

    Yields:
        After each step, the final attempts of the windows that ended with it, by their row: the first plausible one;
        without one, the likeliest.
    """
    tried: dict[int, list[Attempt]] = defaultdict(list)
    pending = list(range(len(options)))
    for number in count():
        for rows in _groups(pending, options, number, max_rows=max_rows):
            for ended in decoder.attempt(rows, prefix[rows], [options[row] for row in rows], number):
                final: dict[int, Attempt] = {}
                for index, attempt in ended.items():
                    row = rows[index]
                    tried[row].append(attempt)
                    chosen = _choose(tried[row], options[row], vocabulary)
                    if chosen is not None:
                        final[row] = chosen
                yield final
                pending = [row for row in pending if row not in final]
        if not pending:
            return


def _choose(attempts: Sequence[Attempt], options: DecodeOptions, vocabulary: Vocabulary) -> Attempt | None:
    """Return the last attempt if it is plausible; after the last temperature the likeliest; None before.

    openai-whisper keeps the last in any case. At its temperature of 1 a text is often invented, where the first may be
    right: any true transcript of a sentence that is said ten times repeats itself.
    """
    if _is_kept(attempts[-1], options, vocabulary):
        return attempts[-1]
    if len(attempts) < len(options.temperatures):
        return None
    return max(attempts, key=lambda attempt: attempt.hypothesis.avg_logprob)


def _is_kept(attempt: Attempt, options: DecodeOptions, vocabulary: Vocabulary) -> bool:
    return is_plausible(
        options,
        text=vocabulary.text(attempt.hypothesis.token_ids),
        avg_logprob=attempt.hypothesis.avg_logprob,
        no_speech_prob=attempt.no_speech_prob,
    )


def _groups(
    pending: Sequence[int], options: Sequence[DecodeOptions], number: int, *, max_rows: int
) -> Iterator[list[int]]:
    """Yield the windows of each call: all searched or all sampled, with equally many texts."""
    groups: dict[tuple[bool, int], list[int]] = defaultdict(list)
    for row in pending:
        groups[is_search(options[row], number), num_texts(options[row], number)].append(row)
    for (_, num_rows), rows in groups.items():
        size = len(rows) if num_rows == 1 else max(1, max_rows // num_rows)
        yield from (rows[first : first + size] for first in range(0, len(rows), size))
