"""Distort speech by a stated amount, to score models at it: noise, babble, rooms, bandwidth, speed, level and clipping.

Training samples its amounts (``Augmenter``). Here the caller states them, and only what a noise or a room consists of
is random. It follows from the utterance's id, so every model reads the same sound, and levels differ in the amount
alone.

Shapes: S samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from sottovoce.audio.augmentation.ambience import noise_at_snr, reverberate
from sottovoce.audio.augmentation.augment import Purpose, utterance_generator
from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import SILENCE_DBFS, peak_dbfs
from sottovoce.errors import ConfigError
from sottovoce.schema import SAMPLING_RATE, Utterance, Waveform

NUM_TALKERS = 6
"""Voices of babble: words of single ones cannot be followed any more (guess)."""
MIN_OTHERS = 3
"""Other recordings with speech that babble needs."""
_NUM_CANDIDATES = 48  # recordings among which talkers are looked for: other voices first, silent ones never

_BLOCK = 2_048  # FFT lengths are multiples of it: odd lengths take several times longer
_PINK_FLOOR_HZ = 50.0  # below it pink noise is flat: what no ear and no mel bin reads must not fill the SNR
_ROOM_M3, _DISTANCE_M = 100.0, 2.0  # a meeting room, and the speaker's distance to the microphone
_DIRECT_SAMPLES = SAMPLING_RATE // 400  # 2.5 ms, in which only direct sound arrives: a detour of 0.9 m


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What decides the sound of a distortion beside its amount."""

    utterance: Utterance
    """Its id seeds what is random, and its recording and speaker are no part of its own babble."""
    others: Sequence[Utterance] = ()
    """The utterances that babble is made from, in a fixed order; this one may be among them."""
    seed: int = 0

    def generator(self, purpose: Purpose) -> np.random.Generator:
        """Return the generator of this utterance for one purpose; see ``utterance_generator``."""
        return utterance_generator(purpose, seed=self.seed, epoch=0, utterance_id=self.utterance.id)


def add_white_noise(waveform: Waveform, scene: Scene, *, snr_db: float) -> Waveform:
    """Add white noise at a ratio of mean powers over the whole (S,), pauses included."""
    noise = scene.generator("white_noise").standard_normal(len(waveform), np.float32)
    return waveform + noise_at_snr(noise, waveform, snr_db=snr_db)


def add_pink_noise(waveform: Waveform, scene: Scene, *, snr_db: float) -> Waveform:
    """Add noise of equal power in every octave above 50 Hz; see ``add_white_noise``."""
    length = -(-len(waveform) // _BLOCK) * _BLOCK
    spectrum = np.fft.rfft(scene.generator("white_noise").standard_normal(length, np.float32))
    frequencies = np.fft.rfftfreq(length, 1.0 / SAMPLING_RATE)
    spectrum /= np.sqrt(np.maximum(frequencies, _PINK_FLOOR_HZ))
    noise = np.fft.irfft(spectrum, n=length)[: len(waveform)].astype(np.float32)
    return waveform + noise_at_snr(noise, waveform, snr_db=snr_db)


def add_babble(waveform: Waveform, scene: Scene, *, snr_db: float) -> Waveform:
    """Add six of the other utterances, equally loud, repeated or cut to the speech's length; see ``add_white_noise``.

    Raises:
        ConfigError: too few other recordings hold speech.
        AudioError: one of them cannot be read.
    """
    generator = scene.generator("background")
    babble, num_talkers = np.zeros(len(waveform), np.float32), 0
    for other in _candidates(scene, generator):
        sound = read_audio(other.audio, start_s=other.start_s, duration_s=other.duration_s)
        offset = int(generator.integers(len(sound)))
        piece = np.resize(np.roll(sound, -offset), len(waveform))
        if peak_dbfs(piece) >= SILENCE_DBFS:
            babble += piece / np.float32(np.sqrt(np.mean(np.square(piece, dtype=np.float64))))
            num_talkers += 1
        if num_talkers == NUM_TALKERS:
            break
    if num_talkers < MIN_OTHERS:
        raise ConfigError(
            f"babble around {scene.utterance.id} has {num_talkers} of {MIN_OTHERS} other recordings with speech;"
            " leave babble out of perturb, or score more utterances"
        )
    return waveform + noise_at_snr(babble, waveform, snr_db=snr_db)


def place_in_room(waveform: Waveform, scene: Scene, *, rt60_s: float) -> Waveform:
    """Reverberate speech as in a room of 100 m³ at 2 m from the microphone; the tail after S samples is cut.

    Args:
        waveform: (S,) float32.
        scene: seeds the reflections.
        rt60_s: seconds until they have decayed by 60 dB, at all frequencies alike.

    Source: Polack 1988, noise that decays exponentially; the level of the direct sound from the critical distance of
    diffuse sound, 0.057 sqrt(V / RT60) (Kuttruff, Room Acoustics).
    """
    decay = np.exp(-np.log(1_000.0) / (rt60_s * SAMPLING_RATE) * np.arange(int(rt60_s * SAMPLING_RATE)))
    tail = scene.generator("room").standard_normal(len(decay)) * decay
    tail[:_DIRECT_SAMPLES] = 0.0
    critical_m = 0.057 * np.sqrt(_ROOM_M3 / rt60_s)
    tail *= _DISTANCE_M / critical_m / np.sqrt(np.sum(np.square(tail)))
    tail[0] = 1.0  # the direct sound
    return reverberate(waveform, tail.astype(np.float32))


def resample_down(waveform: Waveform, scene: Scene, *, bandwidth_hz: float) -> Waveform:
    """Remove what a recording with a sampling rate of twice ``bandwidth_hz`` does not hold."""
    narrow = soxr.resample(waveform, SAMPLING_RATE, 2 * bandwidth_hz, quality="HQ")
    wide: Waveform = soxr.resample(narrow, 2 * bandwidth_hz, SAMPLING_RATE, quality="HQ")[: len(waveform)]
    return np.pad(wide, (0, len(waveform) - len(wide)))


def set_peak(waveform: Waveform, scene: Scene, *, peak_db: float) -> Waveform:
    """Scale speech so that its loudest sample lies at ``peak_db`` dBFS; above 0 it is clipped, silence stays silent."""
    present = peak_dbfs(waveform)
    gain_db = peak_db - present if np.isfinite(present) else 0.0
    scaled: Waveform = np.clip(waveform * np.float32(10.0 ** (gain_db / 20.0)), -1.0, 1.0)
    return scaled


def without_scene(change: Callable[[Waveform], Waveform]) -> Callable[[Waveform, Scene], Waveform]:
    """Return a change that depends on the speech alone as one that takes a scene, too."""
    return lambda waveform, scene: change(waveform)


def can_babble(utterance: Utterance, others: Sequence[Utterance]) -> bool:
    """Whether there are enough other utterances with a text to make babble around this one."""
    found = 0
    for other in others:
        found += _is_other(other, utterance)
        if found == MIN_OTHERS:
            return True
    return False


def _is_other(other: Utterance, utterance: Utterance) -> bool:
    """Whether babble around an utterance may hold another one: speech, and no part of the same recording."""
    is_same = (other.audio, other.start_s) == (utterance.audio, utterance.start_s)
    return other.id != utterance.id and not is_same and bool(other.text)


def _candidates(scene: Scene, generator: np.random.Generator) -> list[Utterance]:
    """Sample the utterances that babble may be made from, other voices before the speaker's own."""
    own, pool = scene.utterance, scene.others
    order: Sequence[int] = generator.permutation(len(pool))[:_NUM_CANDIDATES].tolist()
    found = [pool[index] for index in order if _is_other(pool[index], own)]
    return sorted(found, key=lambda other: own.speaker is not None and other.speaker == own.speaker)
