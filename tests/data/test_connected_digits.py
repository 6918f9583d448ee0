import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.data.connected_digits import ConnectedDigitsConfig, make_connected_digits
from sottovoce.errors import ManifestError

CONFIG = ConnectedDigitsConfig(num_train=6, num_validation=3, num_test=5)


def _single_digits(folder: Path) -> Path:
    """Ten digits of two speakers; each recording is a constant that tells its split, so that leaks can be seen."""
    for split, count, level in (("train", 40, 0.25), ("test", 10, 0.5)):
        (folder / split).mkdir(parents=True)
        rows = [("file_name", "transcription", "speaker")]
        for index in range(count):
            name = f"{index}.wav"
            soundfile.write(folder / split / name, np.full(800, level), 8_000)
            rows.append((name, ["zero", "one"][index % 2], ["ann", "ben"][index % 4 // 2]))
        with (folder / split / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def test_utterances_are_joined_within_their_split_speaker_and_length(tmp_path: Path) -> None:
    output = make_connected_digits(_single_digits(tmp_path / "in"), tmp_path / "out", CONFIG)
    with (output / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train"] * 6 + ["validation"] * 3 + ["test"] * 5
    for row in rows:
        recording, rate = soundfile.read(output / row["file_name"])
        num_digits = len(row["transcription"].split())
        level = 0.5 if row["split"] == "test" else 0.25
        assert rate == 8_000
        assert (recording > 0.1).sum() == 800 * num_digits
        assert recording.max() == pytest.approx(level, abs=1e-3)
        assert num_digits <= 7
        assert row["split"] == "train" or num_digits >= 3


def test_the_same_seed_joins_the_same_utterances(tmp_path: Path) -> None:
    source = _single_digits(tmp_path / "in")
    first, again = (make_connected_digits(source, tmp_path / name, CONFIG) for name in ("a", "b"))
    assert (first / "metadata.csv").read_bytes() == (again / "metadata.csv").read_bytes()
    assert (first / "test_0000.wav").read_bytes() == (again / "test_0000.wav").read_bytes()


def test_a_corpus_without_speakers_raises_manifest_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8_000)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,one\n")
    with pytest.raises(ManifestError, match="speaker"):
        make_connected_digits(tmp_path, tmp_path / "out", CONFIG)


def test_an_unreadable_recording_raises_manifest_error(tmp_path: Path) -> None:
    source = _single_digits(tmp_path / "in")
    (source / "train" / "3.wav").write_bytes(b"no audio")
    with pytest.raises(ManifestError, match=r"3\.wav"):
        make_connected_digits(source, tmp_path / "out", CONFIG)
