"""Recordings of mixed lengths for ``serve_load``: real people's utterances as they are, and joined to minutes."""

import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from sottovoce.audio.decode import decode_audio
from sottovoce.errors import AudioError, ConfigError
from sottovoce.schema import SAMPLING_RATE, Waveform

SHORT = "utterance"
_JOINED_S = {"minute": 60.0, "5 minutes": 300.0}
_WEIGHTS = {SHORT: 0.9, "minute": 0.08, "5 minutes": 0.02}  # of requests: half of the audio is in the long ones (guess)
_PAUSE_S = 0.5  # between joined utterances


@dataclass(frozen=True)
class Upload:
    """One recording as a client sends it."""

    name: str
    group: str
    """How long it is: ``utterance``, ``minute`` or ``5 minutes``."""
    audio_s: float
    data: bytes


def read_uploads(folder: Path, *, seed: int) -> tuple[Upload, ...]:
    """Read the recordings of a manifest, and join some of them to one of each longer length.

    Args:
        folder: with ``manifest.jsonl``, whose ``audio`` is relative to it.
        seed: of the order in which they are joined.

    Raises:
        ConfigError: no manifest, or no recording that can be decoded.
    """
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise ConfigError(f"there is no {manifest}; name a folder with recordings as --recordings")
    paths = [folder / json.loads(line)["audio"] for line in manifest.read_text(encoding="utf-8").splitlines()]
    decoded = [(path, waveform) for path in paths if (waveform := _decode(path)) is not None]
    if not decoded:
        raise ConfigError(f"no recording in {manifest} can be decoded; name another folder as --recordings")
    short = [Upload(path.stem, SHORT, len(one) / SAMPLING_RATE, path.read_bytes()) for path, one in decoded]
    waveforms = [waveform for _, waveform in decoded]
    random.Random(seed).shuffle(waveforms)
    return (*short, *(_join(waveforms, group, duration_s) for group, duration_s in _JOINED_S.items()))


def draw_uploads(uploads: Sequence[Upload], *, seed: int) -> Iterator[Upload]:
    """Draw uploads without end: mostly utterances, and some minutes."""
    draws = random.Random(seed)
    groups = {group: [one for one in uploads if one.group == group] for group in _WEIGHTS}
    while True:
        (group,) = draws.choices([*_WEIGHTS], [*_WEIGHTS.values()])
        yield draws.choice(groups[group])


def _decode(path: Path) -> Waveform | None:
    try:
        return decode_audio(path.read_bytes(), source=path.name)
    except AudioError:  # the folder is for tests of decoding as well
        return None


def _join(waveforms: Sequence[Waveform], group: str, duration_s: float) -> Upload:
    """Join utterances, from the first again where there are too few, and cut them to a length."""
    pause = np.zeros(round(_PAUSE_S * SAMPLING_RATE), np.float32)
    num_samples = round(duration_s * SAMPLING_RATE)
    parts: list[Waveform] = []
    while sum(map(len, parts)) < num_samples:
        parts += [part for waveform in waveforms for part in (waveform, pause)]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate(parts)[:num_samples], SAMPLING_RATE, format="FLAC")
    return Upload(group.replace(" ", "-"), group, duration_s, buffer.getvalue())
