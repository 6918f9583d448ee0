"""Add noise and rooms from folders of recordings.

audiomentations' AddBackgroundNoise and ApplyImpulseResponse read with librosa and warn about each recording of another
rate, and the second one delays speech by the room's first milliseconds. Here ``read_audio`` reads the recordings.

Shapes: S samples of speech, N samples of a recording.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import SILENCE_DBFS, peak_dbfs
from sottovoce.errors import AudioError, ConfigError
from sottovoce.schema import SAMPLING_RATE, Waveform

_logger = logging.getLogger(__name__)

_ENDINGS = frozenset(
    [".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma"]
)
_MAX_ROOM_S = 10.0  # s of an impulse response that are read; a cathedral's is shorter
_MAX_UNUSABLE = 16  # unusable recordings in a row before the folder counts as unusable (guess)


def list_recordings(folder: Path, *, setting: str) -> tuple[str, ...]:
    """List all recordings below a folder, in the same order on every machine.

    Args:
        folder: of the recordings.
        setting: name of the setting, for messages.

    Raises:
        ConfigError: no such folder, or no recordings in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{setting} {str(folder)!r} is no folder; name one that holds recordings")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file()]
    if not found:
        raise ConfigError(
            f"{setting} {str(folder)!r} holds no recordings; their names end in {' '.join(sorted(_ENDINGS))}"
        )
    return tuple(map(str, sorted(found, key=lambda path: path.relative_to(folder).as_posix())))


def read_noise(recordings: Sequence[str], *, choice: float, offset: float, num_samples: int) -> Waveform:
    """Read a piece of one recording; repeat a recording that is too short.

    Args:
        recordings: from ``list_recordings``.
        choice: position of the recording in the list, in [0, 1); the next usable one if it is damaged or silent.
        offset: start of the piece, in [0, 1) of the possible starts.
        num_samples: S.

    Returns:
        (S,) float32, not silent.

    Raises:
        ConfigError: no recording can be used.
    """
    return _first_usable(recordings, choice, lambda path: _read_piece(path, offset=offset, num_samples=num_samples))


def read_room(recordings: Sequence[str], *, choice: float) -> Waveform:
    """Read the impulse response of a room, from the direct sound on.

    Args:
        recordings: from ``list_recordings``.
        choice: see ``read_noise``.

    Returns:
        (N,) float32, the direct sound first, so that speech is not delayed.

    Raises:
        ConfigError: no recording can be used.
    """
    response = _first_usable(recordings, choice, lambda path: read_audio(path, duration_s=_MAX_ROOM_S))
    return response[int(np.abs(response).argmax()) :]


def noise_at_snr(noise: Waveform, waveform: Waveform, *, snr_db: float) -> Waveform:
    """Scale (S,) noise to a signal-to-noise ratio of mean powers with (S,) speech; to zero if the speech is silent."""
    noise_power, speech_power = (float(np.mean(np.square(one, dtype=np.float64))) for one in (noise, waveform))
    return noise * np.float32(np.sqrt(speech_power / noise_power * 10.0 ** (-snr_db / 10.0)))


def reverberate(waveform: Waveform, response: Waveform) -> Waveform:
    """Convolve (S,) speech with an (N,) impulse response, keeping its power; the tail after S samples is cut."""
    from scipy.signal import oaconvolve  # 0.7 s and 80 MB to import

    wet: Waveform = oaconvolve(waveform, response)[: len(waveform)].astype(np.float32)
    dry_power, wet_power = (float(np.mean(np.square(one, dtype=np.float64))) for one in (waveform, wet))
    return wet * np.float32(np.sqrt(dry_power / wet_power)) if wet_power else wet


def _first_usable(recordings: Sequence[str], choice: float, read: Callable[[str], Waveform]) -> Waveform:
    """Read the chosen recording, or the next one that is neither damaged nor silent."""
    first = int(choice * len(recordings))
    for index in range(first, first + min(len(recordings), _MAX_UNUSABLE)):
        path = recordings[index % len(recordings)]
        try:
            sound = read(path)
        except (AudioError, FileNotFoundError) as error:
            _warn_once(path, str(error))
            continue
        if peak_dbfs(sound) >= SILENCE_DBFS:
            return sound
    raise ConfigError(
        f"none of {min(len(recordings), _MAX_UNUSABLE)} recordings from {recordings[first]} on can be used as noise or"
        " room: they are damaged or silent; repair or remove them"
    )


@lru_cache(maxsize=4096)
def _warn_once(path: str, reason: str) -> None:
    """Log a damaged recording, once per process."""
    _logger.warning("another recording is used instead of %s: %s", path, reason)


def _read_piece(path: str, *, offset: float, num_samples: int) -> Waveform:
    wanted_s, duration_s = num_samples / SAMPLING_RATE, _duration_s(path)
    if duration_s is not None and duration_s > wanted_s:
        return np.resize(read_audio(path, start_s=offset * (duration_s - wanted_s), duration_s=wanted_s), num_samples)
    sound = read_audio(path)
    num_starts = len(sound) - num_samples
    if num_starts > 0:  # a long recording whose header does not declare its length
        return sound[int(offset * num_starts) :][:num_samples]
    return np.resize(np.roll(sound, -int(offset * len(sound))), num_samples)


@lru_cache(maxsize=65_536)
def _duration_s(path: str) -> float | None:
    """Return the duration in the header; None for containers that libsndfile does not know."""
    try:
        return float(soundfile.info(path).duration)
    except soundfile.LibsndfileError:
        return None
