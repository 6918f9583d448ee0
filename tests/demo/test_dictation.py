import csv
from pathlib import Path

import soundfile

from sottovoce.demo.dictation import DictationConfig, make_dictation


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_default_corpus_has_604_utterances() -> None:
    config = DictationConfig()
    assert (config.num_train, config.num_test) == (480, 124)


def test_the_corpus_has_the_sizes_asked_for_and_no_test_sentence_in_training(tmp_path: Path) -> None:
    make_dictation(tmp_path, DictationConfig(num_train=14, num_validation=4, num_test=6))
    rows = _rows(tmp_path)
    by_split = {name: [row for row in rows if row["split"] == name] for name in ("train", "validation", "test")}
    assert {name: len(group) for name, group in by_split.items()} == {"train": 10, "validation": 4, "test": 6}
    tested = {row["transcription"] for row in by_split["test"]}
    assert not tested & {row["transcription"] for row in by_split["train"] + by_split["validation"]}
    durations = [soundfile.info(tmp_path / row["file_name"]).duration for row in rows]
    assert all(0.5 < duration < 10.0 for duration in durations)


def test_the_same_seed_gives_the_same_sentences(tmp_path: Path) -> None:
    config = DictationConfig(num_train=3, num_validation=1, num_test=2)
    first, again = (_rows(make_dictation(tmp_path / name, config)) for name in ("a", "b"))
    assert first == again
