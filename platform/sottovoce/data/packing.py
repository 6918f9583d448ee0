"""Join utterances to examples as long as the model's context, so that it goes on hearing long speech.

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

_SAMPLE_S = 1e-4  # durations in manifests are rounded to this
_TOKENIZER = "micro"  # it has Whisper's own multilingual vocabulary
_NUM_AROUND_TEXT = 6  # prefix of four, the space before the text, the end token
_NUM_TIMES = 2  # timestamp tokens around each utterance


def make_examples(utterances: Sequence[Utterance], *, pack_s: float | None = None) -> tuple[Example, ...]:
    """Make the examples of the training split.

    The utterances of one recording are joined in their order, as far as they are known to belong to one; others are
    joined to those of the same speaker. Only utterances of one corpus, language and task meet, and only as many as
    the decoder has room for with their times. Utterances without speech, or of neither a known recording nor a known
    speaker, stay alone.

    Args:
        utterances: of all splits of one manifest: what was said before in a recording is known only if it is here.
        pack_s: longest example [s]; None leaves each utterance alone. A longer utterance stays alone.

    Returns:
        Each training utterance in one example; the examples in the order of their first utterances.
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
    place = {one.id: i for i, one in enumerate(training)}
    packs = sorted(packs, key=lambda pack: place[pack[0].id])
    return tuple(Example(utterances=pack, previous_text=previous.get(pack[0].id)) for pack in packs)


def _kind(utterance: Utterance) -> _Key:
    """Name what all utterances of an example share."""
    return (utterance.corpus, utterance.language, utterance.task)


def _group_recordings(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Give the pieces of each recording that has several, in the order they were spoken."""
    pieces: defaultdict[_Key, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        recording = utterance.recording
        key = (utterance.corpus, "recording", recording) if recording is not None else ("audio", utterance.audio)
        pieces[key].append(utterance)
    return [sorted(group, key=_order_in_recording) for group in pieces.values() if len(group) > 1]


def _order_in_recording(utterance: Utterance) -> tuple[float, list[tuple[int, str]]]:
    """Order by start in one file; the pieces that are files of their own all start at 0, and follow by their ids."""
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
    """Join neighbours for as long as they fit."""
    packs: list[list[Utterance]] = []
    for piece in pieces:
        fits = bool(packs) and _kind(packs[-1][0]) == _kind(piece) and _fits(packs[-1], piece, pack_s)
        if fits:
            packs[-1].append(piece)
        else:
            packs.append([piece])
    return [tuple(pack) for pack in packs]


def _pack_best_fit(utterances: Sequence[Utterance], pack_s: float) -> list[tuple[Utterance, ...]]:
    """Put each utterance, longest first, where it leaves the least room: best-fit decreasing, in O(n log n)."""
    order = sorted(utterances, key=lambda one: -one.duration_s)  # stable, so equal durations keep their order
    packs: list[list[Utterance]] = []
    rooms: list[tuple[float, int]] = []  # seconds left in each pack that has any, sorted; and its place in packs
    for one in order:
        place = bisect_left(rooms, (one.duration_s - _SAMPLE_S, -1))
        if place < len(rooms) and _fits(packs[rooms[place][1]], one, pack_s):
            room_s, number = rooms.pop(place)
            packs[number].append(one)
        else:
            room_s, number = pack_s, len(packs)
            packs.append([one])
        insort(rooms, (room_s - one.duration_s, number))
    given = {one.id: i for i, one in enumerate(utterances)}
    return [tuple(sorted(pack, key=lambda one: given[one.id])) for pack in packs]


def _fits(pack: Sequence[Utterance], utterance: Utterance, pack_s: float) -> bool:
    """Tell whether an utterance can join a pack: both have speech, and seconds and tokens suffice."""
    joined = [*pack, utterance]
    if not all(one.text.strip() for one in joined) or sum(one.duration_s for one in joined) > pack_s + _SAMPLE_S:
        return False
    text = " ".join(one.text for one in joined)
    room = MAX_LABEL_TOKENS - _NUM_TIMES * len(joined)
    # A token covers at least one byte, so a short text needs no tokenizer.
    return len(text.encode()) + _NUM_AROUND_TEXT <= room or load_token_counter(_TOKENIZER)(text) <= room
