"""Join utterances into examples as long as the model's context, so that it keeps transcribing long speech well.

Source: Gandhi et al. 2023, Distil-Whisper, section 4: short utterances of one speaker are joined up to 30 s.
"""

import os
import re
import string
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sottovoce.data.label_limits import load_token_counter
from sottovoce.data.utterance_table import ExampleTable, Rows, UtteranceTable, to_offsets
from sottovoce.schema import MAX_LABEL_TOKENS, Utterance

_Rows: TypeAlias = list[int]
"""Indices of utterances in the table."""

_ROUNDING_S = 1e-4  # durations in manifests are rounded to this
_TOKENIZER = "micro"  # has Whisper's multilingual vocabulary
_NUM_AROUND_TEXT = 5  # prefix and end token
_NUM_TIMES = 2  # timestamp tokens around each utterance
_MAX_TEXT_TOKENS = MAX_LABEL_TOKENS - _NUM_AROUND_TEXT


@dataclass(frozen=True)
class _Speech:
    """What packing asks of every utterance of a table: (N,) each."""

    table: UtteranceTable
    is_training: NDArray[np.bool_]
    has_speech: NDArray[np.bool_]
    kind: NDArray[np.int64]
    """Corpus, language and task, which all utterances of an example share."""

    @classmethod
    def of(cls, table: UtteranceTable) -> "_Speech":
        kind = table.codes("corpus", "language", "task")
        return cls(table, table.is_of_split("train"), table.has_speech(), kind)

    @cached_property
    def duration_s(self) -> list[float]:
        """Seconds."""
        seconds: list[float] = self.table.numbers("duration_s").tolist()
        return seconds

    @cached_property
    def num_bytes(self) -> list[int]:
        """Upper bound of tokens, with the space before and the timestamps: a token covers at least one byte."""
        lengths: list[int] = pc.binary_length(self.table.column("text")).to_pylist()
        return [length + 1 + _NUM_TIMES for length in lengths]

    def count_tokens(self, index: int) -> int:
        """Return the tokens of an utterance's text and timestamps."""
        text: str = self.table.batch.column("text")[int(self.table.rows[index])].as_py()
        return load_token_counter(_TOKENIZER)(text) - _NUM_AROUND_TEXT + _NUM_TIMES


def make_examples(utterances: Sequence[Utterance], *, pack_s: float | None = None) -> ExampleTable:
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
    speech = _Speech.of(UtteranceTable.of(utterances))
    recordings = _group_recordings(speech.table)
    previous = _find_previous(speech, recordings)
    if pack_s is None:
        order = np.flatnonzero(speech.is_training)
        first = np.arange(len(order) + 1, dtype=np.int32)
    else:
        packs = sorted(_pack(speech, recordings, pack_s), key=lambda pack: pack[0])
        order = np.array([index for pack in packs for index in pack], np.int64)
        first = to_offsets([len(pack) for pack in packs])
    ordered = UtteranceTable(speech.table.batch, speech.table.rows[order])
    return ExampleTable(ordered, first, previous[order[first[:-1]]])


def _find_previous(speech: _Speech, recordings: Sequence[_Rows]) -> Rows:
    """Return the row whose text comes before each utterance in its recording, (N,); -1 where none does."""
    previous = np.full(len(speech.table), -1, np.int32)
    pieces = np.fromiter(chain.from_iterable(recordings), np.int64)
    sizes = np.array([len(one) for one in recordings], np.int64)
    ends = np.cumsum(sizes)
    before, after = np.delete(pieces, ends - 1), np.delete(pieces, ends - sizes)
    may_precede = speech.is_training & speech.has_speech
    follows = may_precede[before] & (speech.kind[before] == speech.kind[after])
    previous[after[follows]] = speech.table.rows[before[follows]]
    return previous


def _group_recordings(table: UtteranceTable) -> list[_Rows]:
    """Return the pieces of each recording with several pieces, in spoken order."""
    by_name = table.codes("corpus", "recording")
    by_audio = table.column("audio").dictionary_encode().indices.to_numpy().astype(np.int64)
    key = np.where(
        table.has_value("recording"), by_name + len(table), by_audio
    )  # there are fewer audio codes than rows
    order = np.argsort(key, kind="stable")
    _, firsts, sizes = np.unique(key[order], return_index=True, return_counts=True)
    rows, starts_s = order.tolist(), table.numbers("start_s")[order].tolist()
    spans = [(first, first + size) for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True) if size > 1]
    return [_in_spoken_order(rows[first:stop], starts_s[first:stop], table) for first, stop in spans]


def _in_spoken_order(indices: _Rows, starts_s: Sequence[float], table: UtteranceTable) -> _Rows:
    """Order by the start in one file, then by id, since pieces in files of their own all start at 0."""
    if len(set(starts_s)) == len(starts_s):
        return [index for _, index in sorted(zip(starts_s, indices, strict=True))]
    ids = table.batch.column("id").take(pa.array(table.rows[indices])).to_pylist()
    return [index for _, _, index in sorted(zip(starts_s, _number(ids), indices, strict=True))]


def _number(ids: Sequence[str]) -> Sequence[int] | Sequence[list[tuple[int, str]]]:
    """Return sort keys of ids under which piece 10 comes after piece 9."""
    common = os.path.commonprefix([min(ids), max(ids)]).rstrip(string.digits)  # noqa: RUF071 - of characters, as meant
    rests = [one[len(common) :] for one in ids]
    if all(map(str.isdecimal, rests)) and not common[-1:].isdecimal():  # mostly: the same order in a third of the time
        return [int(rest) for rest in rests]
    return [_natural_key(one) for one in ids]


def _natural_key(utterance_id: str) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", utterance_id)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _pack(speech: _Speech, recordings: Sequence[_Rows], pack_s: float) -> list[_Rows]:
    packs: list[_Rows] = []
    is_left = speech.is_training.copy()
    for pieces in recordings:
        ours = [index for index in pieces if speech.is_training[index]]
        is_left[ours] = False
        packs += _pack_in_order(speech, ours, pack_s)
    is_joinable = is_left & speech.has_speech & speech.table.has_value("speaker")
    packs += [[index] for index in np.flatnonzero(is_left & ~is_joinable).tolist()]
    joinable = np.flatnonzero(is_joinable)
    keys = speech.table.codes("corpus", "language", "task", "speaker")[joinable]
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    for group in np.split(joinable[order], edges):
        packs += _pack_best_fit(speech, group.tolist(), pack_s)
    return packs


def _pack_in_order(speech: _Speech, pieces: _Rows, pack_s: float) -> list[_Rows]:
    """Join neighbours while they fit."""
    packs: list[_Pack] = []
    for piece in pieces:
        if packs and speech.kind[packs[-1].indices[0]] == speech.kind[piece] and packs[-1].fits(piece, pack_s):
            packs[-1].add(piece)
        else:
            packs.append(_Pack(speech, piece))
    return [pack.indices for pack in packs]


def _pack_best_fit(speech: _Speech, indices: _Rows, pack_s: float) -> list[_Rows]:
    """Put each utterance, longest first, where it leaves the least room: best-fit decreasing, O(n log n)."""
    duration_s = speech.duration_s
    order = sorted(indices, key=lambda index: -duration_s[index])  # stable: equal durations keep their order
    packs: list[_Pack] = []
    rooms: list[tuple[float, int]] = []  # seconds left in each pack, sorted, and the index of the pack
    for one in order:
        position = bisect_left(rooms, (duration_s[one] - _ROUNDING_S, -1))
        if position < len(rooms) and packs[rooms[position][1]].fits(one, pack_s):
            _, number = rooms.pop(position)
            packs[number].add(one)
        else:
            number = len(packs)
            packs.append(_Pack(speech, one))
        insort(rooms, (pack_s - packs[number].duration_s, number))
    return [sorted(pack.indices) for pack in packs]


class _Pack:
    """An example under construction."""

    def __init__(self, speech: _Speech, first: int) -> None:
        self.indices = [first]
        self.duration_s = speech.duration_s[first]
        self._speech = speech
        self._num_bytes = speech.num_bytes[first]
        self._num_tokens: int | None = None  # counted only when the number of bytes does not prove that there is room

    def fits(self, index: int, pack_s: float) -> bool:
        """Whether an utterance can join: both have speech, and the limits of seconds and tokens hold."""
        speech = self._speech
        if not speech.has_speech[self.indices[0]] or not speech.has_speech[index]:
            return False
        if self.duration_s + speech.duration_s[index] > pack_s + _ROUNDING_S:
            return False
        if self._num_bytes + speech.num_bytes[index] <= _MAX_TEXT_TOKENS:
            return True
        if self._num_tokens is None:
            self._num_tokens = sum(map(speech.count_tokens, self.indices))
        return self._num_tokens + speech.count_tokens(index) <= _MAX_TEXT_TOKENS

    def add(self, index: int) -> None:
        self.indices.append(index)
        self.duration_s += self._speech.duration_s[index]
        self._num_bytes += self._speech.num_bytes[index]
        if self._num_tokens is not None:
            self._num_tokens += self._speech.count_tokens(index)
