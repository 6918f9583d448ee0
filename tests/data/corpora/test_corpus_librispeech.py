import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.data.corpora.read import read_corpus
from sottovoce.errors import ManifestError

Place = Callable[[dict[str, bytes]], str]


def test_a_tree_is_read_with_splits_speakers_and_chapters(place: Place, encode: Callable[..., bytes]):
    location = place(
        {
            "LibriSpeech/SPEAKERS.TXT": b"; a list\n",
            "LibriSpeech/train-clean-100/103/1240/103-1240.trans.txt": (
                b"103-1240-0000 CHAPTER ONE MISSUS RACHEL LYNDE\n103-1240-0001 THAT HAD ITS SOURCE\n"
            ),
            "LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac": encode(),
            "LibriSpeech/train-clean-100/103/1240/103-1240-0001.wav": encode("WAV"),
            "LibriSpeech/dev-other/116/288045/116-288045.trans.txt": b"116-288045-0000 AS I APPROACHED THE CITY\n",
            "LibriSpeech/test-clean/61/70968/61-70968.trans.txt": b"61-70968-0000 HE BEGAN\n",
        }
    )
    rows = read_corpus(location)
    assert [(row.id, row.split) for row in rows] == [
        ("116-288045-0000", "validation"),
        ("61-70968-0000", "test"),
        ("103-1240-0000", "train"),
        ("103-1240-0001", "train"),
    ]
    first = rows[2]
    assert (first.text, first.speaker, first.recording) == ("CHAPTER ONE MISSUS RACHEL LYNDE", "103", "103-1240")
    assert first.audio == f"{location}/LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac"
    assert rows[3].audio.endswith("103-1240-0001.wav")
    assert rows[0].audio.endswith("116-288045-0000.flac")  # missing: its reject will name the file
    assert all(len(read_audio(row.audio)) == 8_000 for row in rows[2:])


def test_one_subset_or_one_chapter_may_be_given(tmp_path: Path):
    chapter = tmp_path / "dev-clean" / "84" / "121123"
    chapter.mkdir(parents=True)
    (chapter / "84-121123.trans.txt").write_text("84-121123-0000 GO\n")
    assert [row.split for row in read_corpus(tmp_path / "dev-clean")] == ["validation"]
    assert [row.id for row in read_corpus(chapter / "84-121123.trans.txt")] == ["84-121123-0000"]


def test_a_line_that_cannot_be_read_keeps_its_position(tmp_path: Path):
    lines = [b"1-2-0000 GOOD", b"1-2-0001 CAF\xc9", b"\xff\xfe 1", b"", b"1-2-0003", b"1-2-0004 A\0B"]
    (tmp_path / "1-2.trans.txt").write_bytes(b"\n".join(lines))
    rows = read_corpus(tmp_path)
    assert [row.id for row in rows] == ["1-2-0000", "1-2-0001", "1-2.trans.txt:3", "1-2-0003", "1-2-0004"]
    assert [row.fault is None for row in rows] == [True, False, False, True, False]
    assert [row.fault_reason for row in rows if row.fault] == ["wrong_encoding", "wrong_encoding", "invalid_row"]
    assert rows[1].audio == str(tmp_path / "1-2-0001.flac")
    assert rows[3].text is None


def test_a_folder_without_transcripts_is_named(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"holds no \.trans\.txt"):
        read_corpus(tmp_path, format="librispeech")


def test_a_folder_whose_name_is_no_utf8_faults_its_rows(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "1-2.trans.txt").write_text("1-2-0000\tGOOD")
    (row,) = read_corpus(tmp_path)
    assert (row.id, row.audio, row.fault_reason) == ("1-2-0000", f"{tmp_path}/caf\\xe9/1-2-0000.flac", "wrong_encoding")
    assert row.fault is not None
    assert [row.text for row in read_corpus(folder / "1-2.trans.txt")] == [None]
