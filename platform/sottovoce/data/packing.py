"""Join utterances into examples as long as the model's context, so that it keeps transcribing long speech well.

Source: Gandhi et al. 2023, Distil-Whisper, section 4: short utterances of one speaker are joined up to 30 s.
"""

import re
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

from sottovoce.data.label_limits import load_token_counter
from sottovoce.schema import MAX_LABEL_TOKENS, Example, Utterance

_Key: TypeAlias = tuple[str | None, ...]

_ROUNDING_S = 1e-4  # durations in manifests are rounded to this
_TOKENIZER = "micro"  # has Whisper's multilingual vocabulary
_NUM_AROUND_TEXT = 5  # prefix and end token
_NUM_TIMES = 2  # timestamp tokens around each utterance
_MAX_TEXT_TOKENS = MAX_LABEL_TOKENS - _NUM_AROUND_TEXT


def make_examples(utterances: Sequence[Utterance], *, pack_s: float | None = None) -> tuple[Example, ...]:
    """Make the examples of the training split.

    Utterances of one known recording are joined in their order; others are joined with those of the same speaker. An
    example has one corpus, language and task, and no more text and timestamps than fit the decoder. Utterances without
    speech, and those of an unknown recording and speaker, stay alone.

    Args:
        utterances: those of all splits of one manifest, since the previous text of a recording is taken from them.
        pack_s: longest example [s]; None leaves each utterance alone. A longer utterance stays alone.

    Returns:
        The examples, in the order of their first utterances; each training utterance is in exactly one.
    """
    recordings = _group_recordings(utterances)
    previous = {
        after.id: before.text
        for pieces in recordings
        for before, after in pairwise(pieces)
        if before.split == "train" and before.text.strip() and _kind(before) == _kind(after)
    }
    training = [one for one in utterances if one.split == "train"]
    packs = [(one,) for one in training] if pack_s is None else _pack(training, recordings, pack_s)
    index_of = {one.id: index for index, one in enumerate(training)}
    packs = sorted(packs, key=lambda pack: index_of[pack[0].id])
    return tuple(Example(utterances=pack, previous_text=previous.get(pack[0].id)) for pack in packs)


def _kind(utterance: Utterance) -> _Key:
    """Return what all utterances of an example must share."""
    return (utterance.corpus, utterance.language, utterance.task)


def _group_recordings(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Return the pieces of each recording with several pieces, in spoken order."""
    pieces: defaultdict[_Key, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        recording = utterance.recording
        key = (utterance.corpus, "recording", recording) if recording is not None else ("audio", utterance.audio)
        pieces[key].append(utterance)
    return [sorted(group, key=_order_in_recording) for group in pieces.values() if len(group) > 1]


def _order_in_recording(utterance: Utterance) -> tuple[float, list[tuple[int, str]]]:
    """Return a sort key: the start in one file, then the id, since pieces in files of their own all start at 0."""
    parts = re.findall(r"\d+|\D+", utterance.id)
    return utterance.start_s, [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _pack(
    training: Sequence[Utterance], recordings: Iterable[Sequence[Utterance]], pack_s: float
) -> list[tuple[Utterance, ...]]:
    packs: list[tuple[Utterance, ...]] = []
    in_recordings: set[str] = set()
    for pieces in recordings:
        ours = [one for one in pieces if one.split == "train"]
        in_recordings.update(one.id for one in ours)
        packs += _pack_in_order(ours, pack_s)
    speakers: defaultdict[_Key, list[Utterance]] = defaultdict(list)
    for one in training:
        if one.id in in_recordings:
            continue
        if one.speaker is None or not one.text.strip():
            packs.append((one,))
        else:
            speakers[*_kind(one), one.speaker].append(one)
    for group in speakers.values():
        packs += _pack_best_fit(group, pack_s)
    return packs


def _pack_in_order(pieces: Sequence[Utterance], pack_s: float) -> list[tuple[Utterance, ...]]:
    """Join neighbours while they fit."""
    packs: list[_Pack] = []
    for piece in pieces:
        if packs and _kind(packs[-1].utterances[0]) == _kind(piece) and packs[-1].fits(piece, pack_s):
            packs[-1].add(piece)
        else:
            packs.append(_Pack(piece))
    return [tuple(pack.utterances) for pack in packs]


def _pack_best_fit(utterances: Sequence[Utterance], pack_s: float) -> list[tuple[Utterance, ...]]:
    """Put each utterance, longest first, where it leaves the least room: best-fit decreasing, O(n log n)."""
    order = sorted(utterances, key=lambda one: -one.duration_s)  # stable: equal durations keep their order
    packs: list[_Pack] = []
    rooms: list[tuple[float, int]] = []  # seconds left in each pack, sorted, and the index of the pack
    for one in order:
        position = bisect_left(rooms, (one.duration_s - _ROUNDING_S, -1))
        if position < len(rooms) and packs[rooms[position][1]].fits(one, pack_s):
            _, number = rooms.pop(position)
            packs[number].add(one)
        else:
            number = len(packs)
            packs.append(_Pack(one))
        insort(rooms, (pack_s - packs[number].duration_s, number))
    index_of = {one.id: index for index, one in enumerate(utterances)}
    return [tuple(sorted(pack.utterances, key=lambda one: index_of[one.id])) for pack in packs]


class _Pack:
    """An example under construction."""

    def __init__(self, first: Utterance) -> None:
        self.utterances = [first]
        self.duration_s = first.duration_s
        self._num_bytes = _count_bytes(first)
        self._num_tokens: int | None = None  # counted only when the number of bytes does not prove that there is room

    def fits(self, utterance: Utterance, pack_s: float) -> bool:
        """Whether an utterance can join: both have speech, and the limits of seconds and tokens hold."""
        if not self.utterances[0].text.strip() or not utterance.text.strip():
            return False
        if self.duration_s + utterance.duration_s > pack_s + _ROUNDING_S:
            return False
        if self._num_bytes + _count_bytes(utterance) <= _MAX_TEXT_TOKENS:  # a token covers at least one byte
            return True
        if self._num_tokens is None:
            self._num_tokens = sum(map(_count_tokens, self.utterances))
        return self._num_tokens + _count_tokens(utterance) <= _MAX_TEXT_TOKENS

    def add(self, utterance: Utterance) -> None:
        self.utterances.append(utterance)
        self.duration_s += utterance.duration_s
        self._num_bytes += _count_bytes(utterance)
        if self._num_tokens is not None:
            self._num_tokens += _count_tokens(utterance)


def _count_bytes(utterance: Utterance) -> int:
    """Return an upper bound of an utterance's tokens, with the space before it and its timestamps."""
    return len(utterance.text.encode()) + 1 + _NUM_TIMES


def _count_tokens(utterance: Utterance) -> int:
    return load_token_counter(_TOKENIZER)(utterance.text) - _NUM_AROUND_TEXT + _NUM_TIMES
