"""Encode the sound of many utterances for a page, within what one file may hold."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sottovoce.audio.decode import read_audio
from sottovoce.report.corpus.listening import encode_sound
from sottovoce.schema import Utterance

MAX_SOUND_S = 300.0  # s of one utterance on a page: of an hour's recording the first minutes tell how it sounds
MAX_PAGE_SOUND_S = 2 * 3600.0  # s on one page: 60 MB at 50 kbit/s, 41 MB at the 34 kbit/s of real speech (2026-12)


@dataclass(frozen=True)
class Sound:
    """The sound of one utterance for a page, or why there is none."""

    uri: str | None
    """Data URI; None without sound."""
    note: str = ""
    """What is missing, and why; empty where nothing is."""


def plan_sounds(utterances: Sequence[Utterance]) -> list[float]:
    """Return how many seconds of each utterance one page holds: 0 for those that no longer fit.

    Args:
        utterances: of one page, the most important first.
    """
    free_s = MAX_PAGE_SOUND_S
    planned = []
    for utterance in utterances:
        seconds = min(utterance.duration_s, MAX_SOUND_S)
        planned.append(seconds if seconds <= free_s else 0.0)
        free_s -= planned[-1]
    return planned


def encode_sounds(utterances: Sequence[Utterance]) -> Iterator[Sound]:
    """Yield the sound of each utterance in order; one that cannot be read is a note.

    Args:
        utterances: of one page, the most important first.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(_encode, utterances, plan_sounds(utterances))


def _encode(utterance: Utterance, seconds: float) -> Sound:
    if not seconds:
        return Sound(None, f"No sound here: this page holds {MAX_PAGE_SOUND_S / 3600:g} hours, the worst first.")
    try:
        waveform = read_audio(utterance.audio, start_s=utterance.start_s, duration_s=seconds)
    except (OSError, ValueError) as error:  # deleted, damaged, an impossible path, or its storage does not answer
        return Sound(None, f"No sound: {error}")
    note = f"Only the first {seconds:g} s." if seconds < utterance.duration_s else ""
    return Sound(encode_sound(waveform), note)
