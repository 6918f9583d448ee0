"""The quickstart's corpus: medical dictation in synthetic voices through a simulated throat microphone.

Simulated, in this order: the neck as a low-pass of 24 dB per octave above a corner between 1.6 and 2.4 kHz; resonances
near 250 and 700 Hz, and a high-pass at 80 Hz; soft clipping by the amplifier; noise that falls with frequency, 12 to
24 dB below the speech. Not simulated: the missing sound of mouth and nose, the fit of the strap, swallowing. The values
are plausible, not measured on a device.
"""

import csv
import io
import random
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from rich.progress import track
from scipy import fft

from sottovoce.config import Config
from sottovoce.demo.distort import noise
from sottovoce.demo.grammar import load_grammar
from sottovoce.demo.pool import speak_sentence
from sottovoce.demo.speech import TRAINING_VOICES
from sottovoce.schema import SAMPLING_RATE, Split, Waveform

_DECIBELS_PER_OCTAVE = 24.0
_PEAKS_HERTZ = (250.0, 700.0)
_LOWEST_HERTZ = 80.0


def through_throat_microphone(waveform: Waveform, generator: Generator) -> Waveform:
    """Pass speech through the simulated throat microphone.

    Args:
        waveform: (S,) float32 in [-1, 1], 16 000 Hz.
        generator: source of all randomness.

    Returns:
        (S,) float32 in [-1, 1].
    """
    filtered = _filter(waveform, generator)
    drive = generator.uniform(1.5, 4.0) / max(float(np.abs(filtered).max()), 1e-6)
    clipped = np.tanh(filtered * np.float32(drive))
    level = float(clipped.std()) * 10 ** (-generator.uniform(12.0, 24.0) / 20)
    noisy = clipped + np.float32(level) * noise(waveform.shape[0], generator)
    return np.asarray(0.5 * noisy / max(float(np.abs(noisy).max()), 1e-6), dtype=np.float32)


def _filter(waveform: Waveform, generator: Generator) -> Waveform:
    num_samples = fft.next_fast_len(waveform.shape[0], real=True)  # a prime length takes many times as long
    spectrum = fft.rfft(waveform, num_samples)
    hertz = np.maximum(np.linspace(0.0, SAMPLING_RATE / 2, spectrum.shape[0]), 1.0)
    corner = generator.uniform(1_600.0, 2_400.0)
    decibels = -_DECIBELS_PER_OCTAVE * np.maximum(np.log2(hertz / corner), 0.0)
    decibels -= _DECIBELS_PER_OCTAVE * np.maximum(np.log2(_LOWEST_HERTZ / hertz), 0.0)
    for peak in _PEAKS_HERTZ:
        centre = peak * generator.uniform(0.8, 1.25)
        decibels += generator.uniform(4.0, 10.0) * np.exp(-((np.log2(hertz / centre) / 0.5) ** 2))
    gain = 10 ** (np.maximum(decibels, -90.0) / 20)
    filtered = fft.irfft(spectrum * gain, num_samples)[: waveform.shape[0]]
    return np.asarray(filtered, dtype=np.float32)


class DictationConfig(Config):
    """Size of the dictation corpus."""

    num_train: int = 480
    """Utterances for training and validation together."""
    num_validation: int = 40
    """Utterances of ``num_train`` that choose the best checkpoint instead of training."""
    num_test: int = 124
    """Utterances that score the base model, the checkpoint and the exports."""
    seed: int = 11
    """Seed of texts, voices and noise."""


def make_dictation(folder: Path, config: DictationConfig) -> Path:
    """Write the corpus as an audio folder: WAV files and ``metadata.csv`` with file_name, transcription, split.

    No test sentence occurs in training.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(config.seed)
    noise_generator = np.random.default_rng(config.seed)
    speak_next = partial(
        speak_sentence, load_grammar("dictation"), generator, symbol="sentence", voices=TRAINING_VOICES
    )
    test_texts: set[str] = set()
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "transcription", "split"))
        for index, split in enumerate(track(_splits(config), description="dictation through a throat microphone")):
            text, _, waveform = speak_next()
            while split != "test" and text in test_texts:
                text, _, waveform = speak_next()
            if split == "test":
                test_texts.add(text)
            recording = through_throat_microphone(_with_quiet(waveform, noise_generator), noise_generator)
            name = f"dictation_{index:04d}.wav"
            (folder / name).write_bytes(_encode_wav(recording))
            writer.writerow((name, text, split))
    return folder


def _encode_wav(recording: Waveform) -> bytes:
    """Return the bytes of a WAV file. Soundfile waits for the disk with each file that it writes by itself."""
    file = io.BytesIO()
    soundfile.write(file, recording, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _splits(config: DictationConfig) -> list[Split]:
    """Return the split of each utterance: test first, so that training can leave its sentences out."""
    counts: dict[Split, int] = {
        "test": config.num_test,
        "validation": config.num_validation,
        "train": config.num_train - config.num_validation,
    }
    return [split for split, count in counts.items() for _ in range(count)]


def _with_quiet(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Pad with 0.1 to 0.5 s of quiet on both sides, as a push-to-talk button leaves."""
    before, after = (generator.uniform(0.1, 0.5, size=2) * SAMPLING_RATE).astype(int)
    return np.pad(waveform, (before, after))
