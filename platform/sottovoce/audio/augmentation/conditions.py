"""The one table of the conditions that models are scored under, each with its levels.

To add a condition, add its entry to ``CONDITIONS``: ``jobs.score_conditions`` then scores it, and its page draws it.

Shapes: S samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from sottovoce.audio.augmentation.augment import change_speed, limit_band
from sottovoce.audio.augmentation.codec import Codec, pass_through_codec, require_encoder
from sottovoce.audio.augmentation.distortions import (
    MIN_OTHERS,
    Scene,
    add_babble,
    add_pink_noise,
    add_white_noise,
    can_babble,
    place_in_room,
    resample_down,
    set_peak,
    without_scene,
)
from sottovoce.errors import ConfigError
from sottovoce.schema import Utterance, Waveform

Distort: TypeAlias = Callable[[Waveform, Scene], Waveform]

_SNRS_DB = (20, 15, 10, 5, 0, -5)


@dataclass(frozen=True)
class Level:
    """One amount of a condition."""

    name: str
    """With its unit."""
    distort: Distort


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One way in which recordings differ, at several levels."""

    name: str
    kind: str
    """The name under which related conditions are chosen together."""
    title: str
    axis: str
    """What the levels are."""
    levels: tuple[Level, ...]
    """In the order of a curve."""
    clean_at: int = 0
    """Where untouched speech lies among the levels: before the level of this index."""
    codecs: tuple[Codec, ...] = ()
    """Those it encodes with."""
    needs_others: bool = False
    """Whether it is made from other recordings."""


def _noise(name: str, title: str, add: Callable[..., Waveform], *, needs_others: bool = False) -> Condition:
    return Condition(
        name=name,
        kind="noise",
        title=title,
        axis="signal-to-noise ratio",
        levels=tuple(Level(f"{snr_db} dB", partial(add, snr_db=float(snr_db))) for snr_db in _SNRS_DB),
        needs_others=needs_others,
    )


def _coded(name: str, codec: Codec, bit_rate_kbps: float = 0.0) -> Level:
    return Level(name, without_scene(partial(pass_through_codec, codec=codec, bit_rate_kbps=bit_rate_kbps)))


def _bit_rates(codec: Codec, *kbps: int) -> tuple[Level, ...]:
    return tuple(_coded(str(bit_rate), codec, bit_rate) for bit_rate in kbps)


def _change_speed(waveform: Waveform, *, speed: float) -> Waveform:
    return change_speed(waveform, speed, max_num_samples=int(len(waveform) / speed) + 1)


_TABLE: Final[tuple[Condition, ...]] = (
    _noise("white_noise", "White noise", add_white_noise),
    _noise("pink_noise", "Pink noise", add_pink_noise),
    _noise("babble", "Babble of six voices", add_babble, needs_others=True),
    Condition(
        name="bandwidth",
        kind="bandwidth",
        title="Bandwidth",
        axis="highest frequency",
        levels=(
            *(Level(f"{khz} kHz", partial(resample_down, bandwidth_hz=1_000.0 * khz)) for khz in (6, 4, 3)),
            Level("0.3-3.4 kHz", without_scene(partial(limit_band, low_cut_hz=300.0, high_cut_hz=3_400.0))),
        ),
    ),
    Condition(
        name="opus",
        kind="codec",
        title="Opus",
        axis="bit rate (kbit/s)",
        levels=_bit_rates("opus", 24, 12, 8, 6),
        codecs=("opus",),
    ),
    Condition(
        name="mp3",
        kind="codec",
        title="MP3",
        axis="bit rate (kbit/s)",
        levels=_bit_rates("mp3", 64, 32, 16, 8),
        codecs=("mp3",),
    ),
    Condition(
        name="telephony",
        kind="codec",
        title="Telephone codecs",
        axis="codec and bit rate (kbit/s)",
        levels=(
            _coded("G.722 64", "g722"),
            _coded("G.711 64", "mulaw"),
            _coded("AMR 12.2", "amr_nb", 12.2),
            _coded("AMR 4.75", "amr_nb", 4.75),
        ),
        codecs=("g722", "mulaw", "amr_nb"),
    ),
    Condition(
        name="room",
        kind="room",
        title="Rooms",
        axis="reverberation time (RT60)",
        levels=tuple(Level(f"{rt60_s} s", partial(place_in_room, rt60_s=rt60_s)) for rt60_s in (0.3, 0.6, 0.9, 1.2)),
    ),
    Condition(
        name="speed",
        kind="speed",
        title="Speed, with its pitch",
        axis="factor",
        levels=tuple(
            Level(f"{speed}", without_scene(partial(_change_speed, speed=speed))) for speed in (0.8, 0.9, 1.1, 1.25)
        ),
        clean_at=2,
    ),
    Condition(
        name="gain",
        kind="level",
        title="Quiet recordings in 16 bits",
        axis="loudest sample",
        levels=tuple(
            Level(f"{peak_db} dBFS", partial(set_peak, peak_db=float(peak_db))) for peak_db in (-20, -40, -50)
        ),
    ),
    Condition(
        name="clipping",
        kind="level",
        title="Clipping",
        axis="loudest sample above full scale",
        levels=tuple(Level(f"{peak_db} dB", partial(set_peak, peak_db=float(peak_db))) for peak_db in (6, 12, 18, 24)),
    ),
)

CONDITIONS: Final[dict[str, Condition]] = {condition.name: condition for condition in _TABLE}
"""All conditions by name, in the order in which they are scored and shown."""
KINDS: Final[tuple[str, ...]] = tuple(dict.fromkeys(condition.kind for condition in _TABLE))
"""The names of conditions that are chosen together."""


def select_conditions(names: Sequence[str]) -> tuple[Condition, ...]:
    """Return the chosen conditions in the order of the table, each once.

    Args:
        names: of kinds or of single conditions; one string may hold several, with commas between them.

    Raises:
        ConfigError: a name that is neither, or none at all.
    """
    wanted = {part.strip() for name in names for part in name.split(",")} - {""}
    known = {*CONDITIONS, *KINDS}
    singles = ", ".join(name for name in CONDITIONS if name not in KINDS)
    choice = f"choose among {', '.join(KINDS)}, or single conditions: {singles}"
    if not wanted:
        raise ConfigError(f"perturb names no condition; {choice}")
    if unknown := sorted(wanted - known):
        raise ConfigError(f"perturb names {', '.join(map(repr, unknown))}, which is no condition; {choice}")
    return tuple(condition for condition in _TABLE if {condition.name, condition.kind} & wanted)


def check_conditions(conditions: Sequence[Condition], utterances: Sequence[Utterance]) -> None:
    """Check, before hours of scoring, that this machine and these utterances allow the conditions.

    Raises:
        ConfigError: a codec that PyAV cannot encode here, or too few utterances to make babble from.
    """
    for condition in conditions:
        for codec in condition.codecs:
            require_encoder(codec)
        if condition.needs_others and not all(can_babble(one, utterances) for one in utterances):
            raise ConfigError(
                f"{condition.name} is made from at least {MIN_OTHERS} other recordings with speech, and the"
                f" {len(utterances)} utterances to score are too few; leave it out of perturb, or score more"
            )


def perturb(waveform: Waveform, level: Level, scene: Scene) -> Waveform:
    """Distort one utterance; the same arguments return the same samples.

    Args:
        waveform: (S,) float32, at least one sample.
        level: of a condition.
        scene: the utterance, and what it may be mixed with.

    Returns:
        (S,) float32 in [-1, 1], scaled down rather than clipped where noise made it louder; only speed changes S.

    Raises:
        ConfigError, AudioError: see ``add_babble``.
    """
    distorted = level.distort(waveform, scene)
    return distorted / np.float32(max(1.0, np.abs(distorted).max()))
