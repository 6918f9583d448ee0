"""The quickstart's corpus: medical dictation in synthetic voices through a simulated throat microphone."""

import csv
import random
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track

from sottovoce.config import Config
from sottovoce.demo.grammar import load_grammar
from sottovoce.demo.pool import speak_sentence
from sottovoce.demo.speech import TRAINING_VOICES
from sottovoce.demo.throat_microphone import through_throat_microphone
from sottovoce.schema import SAMPLING_RATE, Split, Waveform


class DictationConfig(Config):
    """How much dictation is made."""

    num_train: int = 480
    """Training utterances, those that validate among them."""
    num_validation: int = 40
    """Of the training utterances, how many choose the best checkpoint instead of training."""
    num_test: int = 124
    seed: int = 11


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
            soundfile.write(folder / f"dictation_{index:04d}.wav", recording, SAMPLING_RATE, subtype="PCM_16")
            writer.writerow((f"dictation_{index:04d}.wav", text, split))
    return folder


def _splits(config: DictationConfig) -> list[Split]:
    """Test comes first, so that training can leave its sentences out."""
    counts: dict[Split, int] = {
        "test": config.num_test,
        "validation": config.num_validation,
        "train": config.num_train - config.num_validation,
    }
    return [split for split, count in counts.items() for _ in range(count)]


def _with_quiet(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """A tenth to half a second of quiet on both sides, as a push-to-talk button leaves."""
    before, after = (generator.uniform(0.1, 0.5, size=2) * SAMPLING_RATE).astype(int)
    return np.pad(waveform, (before, after))
