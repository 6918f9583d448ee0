"""Recordings for ``slow_speech``: real people's speech with pauses inserted, whose places are known."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from scipy.signal import lfilter

from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import find_pauses, sound_span
from sottovoce.data.corpora.read import read_corpus
from sottovoce.schema import MAX_CONTEXT_S, SAMPLING_RATE, Waveform

Group: TypeAlias = Literal["tuned", "tested", "ordinary"]
Kind: TypeAlias = Literal["digits", "phrases", "sentences", "ordinary"]

_SEED = 2_028  # no other speech of the project is made with it
_PAUSE_S = (1.0, 8.0)
_CUT_S = 0.15  # a shorter pause is within a word as often as between two
_EDGE_S = 0.3  # of a sentence's own silence that is kept on either side
_TUNED_SOURCE = "coqui-ai/TTS"
_UNLIKE = ("multilingual_ipa", "cold_corpus", "acoustic_corpus", "common_voice")
"""Parts of names of files whose transcripts leave words out, or that are one word long."""
_NUM_DIGITS = 6  # in a recording
_NUM_RECORDINGS = {"digits": 2, "phrases": 4, "sentences": 1, "ordinary": 6}
_NUM_SENTENCES = 5  # in a recording
_DARKNESS = 0.9  # coefficient of the one-pole filter that takes the hiss out of a pause's noise


@dataclass(frozen=True)
class SlowSpeech:
    """A recording, what is said in it, and where."""

    group: Group
    kind: Kind
    text: str
    waveform: Waveform
    stretches: tuple[tuple[float, float], ...]
    """Start and end [s] of each stretch of speech between inserted pauses."""
    pauses: tuple[tuple[float, float], ...]
    """Start and end [s] of each inserted pause."""


@dataclass(frozen=True)
class _Clip:
    text: str
    waveform: Waveform
    speaker: str


def build_slow_speech(speech: Path, digits: Path) -> list[SlowSpeech]:
    """Make all recordings; every call makes the same.

    Args:
        speech: folder with recordings and ``manifest.jsonl``.
        digits: audio folder of single spoken digits.
    """
    generator = np.random.default_rng(_SEED)
    spoken: list[SlowSpeech] = []
    groups: tuple[tuple[Group, bool, str], ...] = (("tuned", True, "train"), ("tested", False, "test"))
    for group, is_tuned, split in groups:
        clips = _read_speech(speech, is_tuned=is_tuned)
        spoken += _join(group, "digits", _read_digits(digits, split, generator), _NUM_DIGITS, generator)
        spoken += [_slow_down(group, clip, generator) for clip in clips[: _NUM_RECORDINGS["phrases"]]]
        later = clips[_NUM_RECORDINGS["phrases"] :]
        spoken += _join(group, "sentences", later, _NUM_SENTENCES, generator)
        ordinary = clips[-_NUM_RECORDINGS["ordinary"] // 2 :]
        spoken += [
            SlowSpeech("ordinary", "ordinary", one.text, one.waveform, (sound_span(one.waveform),), ())
            for one in ordinary
        ]
    return spoken


def _read_speech(folder: Path, *, is_tuned: bool) -> list[_Clip]:
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["language"] == "en"]
    chosen = [
        row
        for row in rows
        if (row["source"] == _TUNED_SOURCE) is is_tuned and not any(part in row["audio"] for part in _UNLIKE)
    ]
    clips = [_Clip(row["text"], read_audio(folder / row["audio"]), row["source"]) for row in chosen]
    return [clip for clip in clips if 4.0 <= len(clip.waveform) / SAMPLING_RATE <= MAX_CONTEXT_S]


def _read_digits(folder: Path, split: str, generator: np.random.Generator) -> list[_Clip]:
    """Read enough digits of each speaker, in an order drawn once."""
    rows = [row for row in read_corpus(folder) if row.split == split and row.text]
    order = generator.permutation(len(rows))
    speakers = sorted({str(row.speaker) for row in rows})
    chosen = [[rows[place] for place in order if rows[place].speaker == speaker][:_NUM_DIGITS] for speaker in speakers]
    return [_Clip(row.text or "", read_audio(row.audio), str(row.speaker)) for found in chosen for row in found]


def _join(
    group: Group, kind: Kind, clips: Sequence[_Clip], num_clips: int, generator: np.random.Generator
) -> Iterator[SlowSpeech]:
    """Join clips, so many to a recording, with a pause before, between and after them."""
    for number in range(_NUM_RECORDINGS[kind]):
        chosen = clips[number * num_clips : (number + 1) * num_clips]
        pieces = [_trim(clip.waveform) for clip in chosen]
        text = " ".join(clip.text for clip in chosen)
        yield _with_pauses(group, kind, text, pieces, generator)


def _slow_down(group: Group, clip: _Clip, generator: np.random.Generator) -> SlowSpeech:
    """Insert a pause wherever the speaker made one."""
    pauses = [span for span in find_pauses(clip.waveform) if span[1] - span[0] >= _CUT_S]
    begins_s, ends_s = sound_span(clip.waveform)
    cuts = [round(sum(span) / 2 * SAMPLING_RATE) for span in pauses if begins_s < span[0] and span[1] < ends_s]
    pieces = np.split(_trim(clip.waveform), [cut - round(max(0.0, begins_s - _EDGE_S) * SAMPLING_RATE) for cut in cuts])
    return _with_pauses(group, "phrases", clip.text, pieces, generator)


def _with_pauses(
    group: Group, kind: Kind, text: str, pieces: Sequence[Waveform], generator: np.random.Generator
) -> SlowSpeech:
    parts = [_noise_like(pieces[0], generator)]
    stretches: list[tuple[float, float]] = []
    pauses = [(0.0, len(parts[0]) / SAMPLING_RATE)]
    for piece in pieces:
        offset_s = sum(map(len, parts)) / SAMPLING_RATE
        begins_s, ends_s = sound_span(piece)
        stretches.append((offset_s + begins_s, offset_s + ends_s))
        noise = _noise_like(piece, generator)
        parts += [piece, noise]
        pause_from_s = offset_s + len(piece) / SAMPLING_RATE
        pauses.append((pause_from_s, pause_from_s + len(noise) / SAMPLING_RATE))
    return SlowSpeech(group, kind, text, np.concatenate(parts), tuple(stretches), tuple(pauses))


def _noise_like(piece: Waveform, generator: np.random.Generator) -> Waveform:
    """Return noise of a random length, as loud as the quietest tenth of a piece's frames."""
    frames = piece[: len(piece) // 160 * 160].reshape(-1, 160)
    level = float(np.percentile(np.sqrt(np.square(frames).mean(axis=1)), 10))
    white = generator.standard_normal(round(generator.uniform(*_PAUSE_S) * SAMPLING_RATE))
    dark = lfilter([1.0 - _DARKNESS], [1.0, -_DARKNESS], white)
    return np.asarray(dark / dark.std() * level, np.float32)


def _trim(waveform: Waveform) -> Waveform:
    """Leave a little of the silence on either side."""
    begins_s, ends_s = sound_span(waveform)
    return waveform[round(max(0.0, begins_s - _EDGE_S) * SAMPLING_RATE) : round((ends_s + _EDGE_S) * SAMPLING_RATE)]
