"""Minutes in which nobody says a word, of the kinds a microphone hears.

Shapes: S samples.
"""

from collections.abc import Callable, Mapping

import numpy as np

from sottovoce.schema import SAMPLING_RATE, Waveform

_LSB = 1 / 32_768  # the least significant bit of 16-bit PCM


def make_sounds(duration_s: float, *, seed: int) -> dict[str, Waveform]:
    """Return each kind of sound by name, (S,) float32 at 16 000 Hz; levels are RMS relative to full scale."""
    num_samples = round(duration_s * SAMPLING_RATE)
    makers: Mapping[str, Callable[[np.random.Generator, int], np.ndarray]] = {
        "digital silence": lambda _, count: np.zeros(count),
        "dither": lambda random, count: _LSB * random.integers(-1, 2, count),
        "DC offset, -20 dB": lambda random, count: 0.1 + _LSB * random.integers(-1, 2, count),
        "white noise, -60 dB": lambda random, count: _at(_white(random, count), -60),
        "white noise, -40 dB": lambda random, count: _at(_white(random, count), -40),
        "white noise, -20 dB": lambda random, count: _at(_white(random, count), -20),
        "hum 50 Hz, -30 dB": lambda random, count: _at(_hum(count, 50.0), -30) + _at(_white(random, count), -70),
        "room, -45 dB": lambda random, count: _at(_room(random, count), -45),
        "room, -25 dB": lambda random, count: _at(_room(random, count), -25),
        "fan and hum, -30 dB": lambda random, count: _at(_room(random, count) + 2 * _hum(count, 100.0), -30),
        "clicks": _clicks,
        "typing": _typing,
        "chords": _chords,
        "melody": _melody,
        "telephone tones": _dial_tones,
    }
    return {
        name: np.asarray(make(np.random.default_rng([seed, number]), num_samples), np.float32).clip(-1.0, 1.0)
        for number, (name, make) in enumerate(makers.items())
    }


def _at(sound: np.ndarray, level_db: float) -> np.ndarray:
    return np.asarray(sound * 10.0 ** (level_db / 20.0) / np.sqrt(np.mean(np.square(sound))))


def _times(count: int) -> np.ndarray:
    return np.arange(count) / SAMPLING_RATE


def _white(random: np.random.Generator, count: int) -> np.ndarray:
    return random.standard_normal(count)


def _room(random: np.random.Generator, count: int) -> np.ndarray:
    """Noise that falls by 6 dB an octave above 100 Hz and wanders in loudness, as ventilation and traffic do."""
    from scipy.signal import lfilter  # 0.7 s to import

    slow = 1.0 + 0.5 * np.sin(2 * np.pi * 0.13 * _times(count) + random.uniform(0, 6))
    return np.asarray(slow * lfilter([1.0], [1.0, -np.exp(-2 * np.pi * 100 / SAMPLING_RATE)], _white(random, count)))


def _hum(count: int, mains_hz: float) -> np.ndarray:
    """Mains and its overtones."""
    times = _times(count)
    return np.asarray(sum(np.sin(2 * np.pi * mains_hz * k * times) / k for k in (1, 2, 3, 5, 7)))


def _clicks(random: np.random.Generator, count: int) -> np.ndarray:
    """Single loud samples, two a second: a bad plug."""
    sound = _at(_white(random, count), -70)
    sound[random.integers(0, count, 2 * count // SAMPLING_RATE)] += random.choice((-0.8, 0.8))
    return sound


def _typing(random: np.random.Generator, count: int) -> np.ndarray:
    """Bursts of noise of some milliseconds, six a second."""
    sound = _at(_white(random, count), -65)
    for start in random.integers(0, max(1, count - 640), 6 * count // SAMPLING_RATE):
        burst = _white(random, 640) * np.exp(-np.arange(640) / random.uniform(40, 160))
        sound[start : start + 640] += random.uniform(0.05, 0.3) * burst[: count - start]
    return sound


def _chords(random: np.random.Generator, count: int) -> np.ndarray:
    """Three notes with overtones, another chord each second, as an organ plays them."""
    return _notes(random, count, length_s=1.0, steps=(0, 4, 7))


def _melody(random: np.random.Generator, count: int) -> np.ndarray:
    """One note after the other, four a second, each dying away, as on a piano."""
    return _notes(random, count, length_s=0.25, steps=(0,))


def _notes(random: np.random.Generator, count: int, *, length_s: float, steps: tuple[int, ...]) -> np.ndarray:
    num_note = round(length_s * SAMPLING_RATE)
    times = _times(num_note)
    fade = np.minimum(1.0, 100.0 * times) * np.exp(-times / length_s)
    notes = []
    for _ in range(count // num_note + 1):
        root = 110.0 * 2.0 ** (random.integers(0, 30) / 12.0)
        pitches = [root * 2.0 ** (step / 12.0) for step in steps]
        notes.append(fade * sum(np.sin(2 * np.pi * f * k * times) / k**2 for f in pitches for k in range(1, 6)))
    return _at(np.concatenate(notes)[:count], -22)


def _dial_tones(random: np.random.Generator, count: int) -> np.ndarray:
    """Keys of a telephone, a tenth of a second each with as long a pause."""
    rows, columns = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0)
    num_key = SAMPLING_RATE // 10
    times = _times(num_key)
    keys = []
    for _ in range(count // (2 * num_key) + 1):
        low, high = random.choice(rows), random.choice(columns)
        keys += [np.sin(2 * np.pi * low * times) + np.sin(2 * np.pi * high * times), np.zeros(num_key)]
    return 0.1 * np.concatenate(keys)[:count]
