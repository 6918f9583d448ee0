"""A manifest of speech that nobody transcribed: listing, cutting, labelling and rejecting."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.data import teacher as module
from sottovoce.data.manifest import write_manifest
from sottovoce.data.teacher import Recording, Teacher, list_recordings
from sottovoce.errors import ManifestError
from sottovoce.schema import Reject, Utterance


@pytest.fixture
def folder(tmp_path: Path, speech_like) -> Path:
    for index, waveform in enumerate(speech_like[:8]):
        path = tmp_path / "audio" / f"day {index % 2}" / f"{index}.WAV"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, 16_000, format="WAV")
    (tmp_path / "audio" / "notes.txt").write_text("no recording")
    return tmp_path / "audio"


@pytest.fixture(scope="module")
def teacher(tiny_checkpoint: Path) -> Teacher:
    return Teacher(str(tiny_checkpoint))


@pytest.fixture(autouse=True)
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model's texts are implausible at any temperature; one is tried."""
    monkeypatch.setattr(module, "FALLBACK_TEMPERATURES", (0.0,))


def transcribed(teacher: Teacher, *recordings: Recording) -> tuple[list[Utterance], list[Reject]]:
    rows = teacher({"recording": [one.model_dump_json() for one in recordings]})
    utterances = [Utterance.model_validate_json(one) for row in rows["utterances"] for one in row]
    return utterances, [Reject.model_validate_json(one) for row in rows["rejects"] for one in row]


def test_a_folders_recordings_are_found_and_divided_the_same_way_each_time(folder: Path) -> None:
    found = list_recordings([folder], validation_fraction=0.3)
    assert [one.id for one in found] == sorted(f"day {index % 2}/{index}.WAV" for index in range(8))
    assert {one.split for one in found} == {"train", "validation"}
    (folder / "day 0" / "0.WAV").unlink()
    assert list_recordings([folder], validation_fraction=0.3) == [one for one in found if one.id != "day 0/0.WAV"]


def test_some_recording_validates_however_small_the_fraction(folder: Path) -> None:
    found = list_recordings([folder], validation_fraction=1e-9)
    assert [one.split for one in found].count("validation") == 1


def test_manifests_keep_their_splits_and_texts(folder: Path, tmp_path: Path) -> None:
    made = [
        Utterance(id=split, audio=str(folder / "day 0" / "0.WAV"), duration_s=0.3, text="said", split=split)
        for split in ("train", "validation", "test")
    ]
    write_manifest(made, tmp_path / "manifest.jsonl")
    found = list_recordings([tmp_path / "manifest.jsonl", folder], validation_fraction=1e-9)
    assert [(one.id, one.text, one.split) for one in found[:3]] == [(one.id, "said", one.split) for one in made]
    assert {one.split for one in found[3:]} == {"train"}


def test_a_source_that_is_named_twice_is_refused(folder: Path) -> None:
    with pytest.raises(ManifestError, match="two recordings share an id"):
        list_recordings([folder, folder], validation_fraction=0.1)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no recordings"):
        list_recordings([tmp_path], validation_fraction=0.1)


def test_training_learns_the_teachers_text_and_people_are_scored(teacher: Teacher, folder: Path) -> None:
    audio = str(folder / "day 0" / "2.WAV")
    rows = [
        Recording(id=split, audio=audio, text="said by a person", language="en", split=split)
        for split in ("train", "validation", "test")
    ]
    utterances, rejects = transcribed(teacher, *rows)
    by_id = {one.id: one for one in utterances}
    assert by_id["validation"].text == by_id["test"].text == "said by a person"
    # what a random model writes is implausible, so that training does not learn it
    assert [(one.id, one.reason) for one in rejects] == [("train", "implausible_text")]
    assert "train" not in by_id


def test_a_long_recording_becomes_windows_of_it(teacher: Teacher, tmp_path: Path, speech_like) -> None:
    spoken = np.concatenate(speech_like[6:9])  # 18 s; the tiny model reads 10 s
    soundfile.write(tmp_path / "long.wav", spoken, 16_000)
    _, rejects = transcribed(teacher, Recording(id="long", audio=str(tmp_path / "long.wav"), split="train"))
    assert [one.id for one in rejects] == [f"long-{number:04d}" for number in range(len(rejects))]
    assert len(rejects) > 1


def test_a_recording_that_cannot_be_read_is_a_reject(teacher: Teacher, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFFnothing")
    broken = Recording(id="broken", audio=str(tmp_path / "broken.wav"), split="train")
    utterances, rejects = transcribed(teacher, broken)
    assert utterances == []
    assert [(one.id, one.reason) for one in rejects] == [("broken", "unreadable")]
