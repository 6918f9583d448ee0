"""Make connected digits of real speakers from a corpus of single spoken digits.

It is meant for the Free Spoken Digit Dataset (Jakobovski, CC BY-SA 4.0): an audio folder with ``train/`` and ``test/``
and one digit per recording. Test recordings occur in test utterances only, and validation recordings not in training.
"""

import csv
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from sottovoce.config import Config
from sottovoce.data.corpora.read import read_corpus
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError
from sottovoce.schema import Split, Waveform

_PAUSE_S = (0.05, 0.3)  # between two digits
_MARGIN_S = (0.05, 0.25)  # before the first digit and after the last
_VALIDATION_SHARE = 0.1  # of the training recordings


class ConnectedDigitsConfig(Config):
    """Number and length of the utterances to make."""

    num_train: int = 1_200
    num_validation: int = 60
    num_test: int = 200
    min_digits: int = 3
    """Fewest digits of validation and test utterances; training utterances have one or more."""
    max_digits: int = 7
    seed: int = 0


@dataclass(frozen=True)
class _Digit:
    word: str
    speaker: str
    recording: Waveform


def make_connected_digits(source: Path, output: Path, config: ConnectedDigitsConfig) -> Path:
    """Join digits of one speaker, with short pauses, into an audio folder at the recordings' own sampling rate.

    Args:
        source: audio folder with one spoken digit per row, and with splits and speakers.
        output: folder that receives WAV files and ``metadata.csv`` with file_name, transcription, speaker, split.
        config: sizes and seed.

    Returns:
        ``output``.

    Raises:
        ManifestError: the source is not such a corpus.
    """
    digits, sampling_rate = _read_digits(source, config)
    counts: Mapping[Split, int] = {
        "train": config.num_train,
        "validation": config.num_validation,
        "test": config.num_test,
    }
    generator = random.Random(config.seed)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "transcription", "speaker", "split"))
        for split, count in counts.items():
            shortest = 1 if split == "train" else config.min_digits
            for index in range(count):
                speaker = generator.choice(sorted(digits[split]))
                length = generator.randint(shortest, config.max_digits)
                chosen = generator.choices(digits[split][speaker], k=length)
                name = f"{split}_{index:04d}.wav"
                soundfile.write(output / name, _join(chosen, sampling_rate, generator), sampling_rate, subtype="PCM_16")
                writer.writerow((name, " ".join(digit.word for digit in chosen), speaker, split))
    return output


def _read_digits(source: Path, config: ConnectedDigitsConfig) -> tuple[dict[Split, dict[str, list[_Digit]]], int]:
    """Read every recording, by split and speaker; move a tenth of the training recordings to validation."""
    digits: dict[Split, dict[str, list[_Digit]]] = defaultdict(lambda: defaultdict(list))
    rates: set[int] = set()
    generator = random.Random(config.seed)
    for row in read_corpus(source):
        if row.fault or row.text is None or row.speaker is None or row.split is None:
            raise ManifestError(source, f"{row.id}: {row.fault or 'text, speaker and split are needed'}")
        is_held_out = row.split == "train" and generator.random() < _VALIDATION_SHARE
        split: Split = "validation" if is_held_out else row.split
        recording, rate = _read_recording(row)
        rates.add(rate)
        digits[split][row.speaker].append(_Digit(row.text, row.speaker, recording))
    if len(rates) != 1 or not {"train", "validation", "test"} <= digits.keys():
        raise ManifestError(source, f"one sampling rate, train/ and test/ are needed; found {rates} and {list(digits)}")
    return digits, rates.pop()


def _read_recording(row: CorpusRow) -> tuple[Waveform, int]:
    """Read one file at its own sampling rate; only the joined utterance goes through the platform's decoder."""
    try:
        recording, rate = soundfile.read(row.audio, dtype="float32")
    except soundfile.SoundFileError as error:
        raise ManifestError(row.audio, str(error)) from error
    return recording, int(rate)


def _join(digits: Sequence[_Digit], sampling_rate: int, generator: random.Random) -> Waveform:
    def quiet(bounds: tuple[float, float]) -> Waveform:
        return np.zeros(round(generator.uniform(*bounds) * sampling_rate), dtype=np.float32)

    parts = [quiet(_MARGIN_S)]
    for digit in digits:
        parts += [digit.recording, quiet(_PAUSE_S)]
    return np.concatenate([*parts[:-1], quiet(_MARGIN_S)])
