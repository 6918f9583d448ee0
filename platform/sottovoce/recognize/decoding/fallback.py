"""Decode windows with temperature fallback: an implausible text is generated again at the next temperature.

Shapes: B windows, T tokens.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
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

    A plausible text is final at once, while other windows of the batch go on. A text that repeats itself ends early;
    if it is the likeliest in the end, it is generated again as a whole.

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
    attempt = partial(_attempt, decoder, prefix, options, max_rows=max_rows)
    windows = [_Window(option, vocabulary) for option in options]
    pending = list(range(len(options)))
    for number in count():
        for ended in attempt(pending, number):
            for row, latest in ended.items():
                windows[row].take(latest)
            yield {row: final for row in ended if (final := windows[row].final) is not None}
        pending = [row for row in pending if windows[row].chosen is None]
        if not pending:
            break
    for number, rows in _group_cut(windows).items():
        yield from attempt(rows, number, cuts_loops=False)


def _attempt(
    decoder: WindowDecoder,
    prefix: TokenIds,
    options: Sequence[DecodeOptions],
    rows: Sequence[int],
    number: int,
    *,
    max_rows: int,
    cuts_loops: bool = True,
) -> Iterator[dict[int, Attempt]]:
    """Decode some windows of the batch at their temperature ``number``; yield attempts by the window's row."""
    for group in _groups(rows, options, number, max_rows=max_rows):
        chosen = [options[row] for row in group]
        for ended in decoder.attempt(group, prefix[group], chosen, number, cuts_loops=cuts_loops):
            yield {group[index]: attempt for index, attempt in ended.items()}


class _Window:
    """The attempts at the text of one window."""

    def __init__(self, options: DecodeOptions, vocabulary: Vocabulary) -> None:
        self._options = options
        self._vocabulary = vocabulary
        self.attempts: list[Attempt] = []
        self.chosen: Attempt | None = None

    @property
    def final(self) -> Attempt | None:
        """The chosen attempt, unless its text was cut."""
        return None if self.chosen is None or self.chosen.hypothesis.is_cut else self.chosen

    def take(self, latest: Attempt) -> None:
        """Choose an attempt if it is plausible; after the last temperature the one with the highest log-probability.

        openai-whisper keeps the last in any case. At its temperature of 1 a text is often invented, where the first
        may be right: any true transcript of a sentence that is said ten times repeats itself.
        """
        self.attempts.append(latest)
        if _is_kept(latest, self._options, self._vocabulary):
            self.chosen = latest
        elif len(self.attempts) == len(self._options.temperatures):
            self.chosen = max(self.attempts, key=lambda attempt: attempt.hypothesis.avg_logprob)


def _group_cut(windows: Sequence[_Window]) -> dict[int, list[int]]:
    """Group the windows whose chosen text was cut by the index of its temperature."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, window in enumerate(windows):
        if window.chosen is not None and window.final is None:
            groups[window.attempts.index(window.chosen)].append(row)
    return groups


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
