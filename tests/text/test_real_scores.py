"""The benchmark on real people is fair to a base model that writes numerals, and never scores what was trained on."""

import json
from pathlib import Path

import pytest

from benchmarks.real_scores import score_digits, spell_digits
from benchmarks.real_walk import TRAINED_SOURCE, write_english
from benchmarks.whisper_systems import System
from sottovoce.schema import Utterance

BASE = System(model="base", engine="sottovoce", variant="torch")
TUNED = System(model="fine-tuned", engine="sottovoce", variant="int8")
SAID = ("three one eight two", "zero nine", "five five five")


def utterances() -> list[Utterance]:
    return [
        Utterance(id=f"u{i}", audio=f"{i}.wav", duration_s=2.0, text=text, split="test") for i, text in enumerate(SAID)
    ]


def test_numerals_are_spelled_one_by_one_and_other_text_stays() -> None:
    assert spell_digits("318-2").split() == ["three", "one", "eight", "-", "two"]
    assert spell_digits("no digit") == "no digit"


def test_however_digits_are_written_they_are_right() -> None:
    written = ["318-2.", "0, 9", "Five, 55"]
    (row,) = score_digits(utterances(), {BASE: written})
    assert row["wer"] == 0.0
    assert row["num_words"] == 9


def test_each_system_is_compared_with_the_first_on_the_same_utterances() -> None:
    wrong = ["3 1 8", "0 9 9", "5 5 4"]  # a deletion, an insertion, a substitution
    base, tuned = score_digits(utterances(), {BASE: wrong, TUNED: list(SAID)})
    assert (base["substitutions"], base["deletions"], base["insertions"]) == (1, 1, 1)
    assert base["wer"] == pytest.approx(3 / 9)
    assert "minus_first" not in base
    change = tuned["minus_first"]
    assert isinstance(change, dict)
    assert change["wer"] == pytest.approx(-3 / 9)
    assert change["low"] <= change["wer"] <= change["high"] <= 0.0


def test_ordinary_speech_is_divided_by_source_and_only_english_is_taken(tmp_path: Path) -> None:
    sources = [TRAINED_SOURCE] * 9 + ["another/source"] * 3 + ["a/third"]
    rows = [
        {
            "audio": f"audio/{i}.wav",
            "text": "words",
            "language": "de" if source == "a/third" else "en",
            "source": source,
        }
        for i, source in enumerate(sources)
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_english(tmp_path, tmp_path / "out" / "speech.jsonl")
    written = [
        json.loads(line) for line in (tmp_path / "out" / "speech.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    splits = {row["id"]: row["split"] for row in written}
    assert [splits[str(i)] for i in range(9)] == ["validation", *["train"] * 7, "validation"]
    assert [splits[str(i)] for i in range(9, 12)] == ["test"] * 3
    assert "12" not in splits
    assert written[0]["audio"] == str(tmp_path / "audio" / "0.wav")
