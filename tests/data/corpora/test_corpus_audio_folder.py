from collections.abc import Callable
from pathlib import Path

import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.data.corpora.read import read_corpus
from sottovoce.errors import ManifestError


def test_audio_folder_with_csv_is_read(tmp_path: Path):
    text = '\ufefffile_name,transcription,speaker_id,language,split\na.wav,"Hello, you",7,de,dev\n'
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    (row,) = read_corpus(tmp_path)
    assert (row.id, row.audio, row.text) == ("a.wav", str(tmp_path / "a.wav"), "Hello, you")
    assert (row.speaker, row.language, row.split, row.fault) == ("7", "de", "validation", None)


def test_folders_name_the_split(tmp_path: Path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metadata.jsonl").write_text('{"file_name": "a.wav", "sentence": "x"}\n')
    assert {row.id: row.split for row in read_corpus(tmp_path)} == {"test/a.wav": "test", "train/a.wav": "train"}


def test_jsonl_with_our_keys_is_read(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "1", "audio": "/x/a.wav", "text": "t", "start_s": 1, "duration_s": 2.5, "speaker": 3}\n')
    (row,) = read_corpus(path)
    assert (row.audio, row.start_s, row.duration_s, row.speaker) == ("/x/a.wav", 1.0, 2.5, "3")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{", "JSON"),
        (b"[1]", "object"),
        (b'{"audio": "a.wav", "text": "caf\xe9"}', "UTF-8"),
        (b'{"audio": "a.wav", "text": "\\ud800"}', "UTF-8"),
        (b'{"audio": "a\\u0000.wav", "text": "x"}', "NUL"),
        (b'{"audio": ["a.wav"], "text": "x"}', "list"),
        (b'{"text": "x"}', "names no audio"),
        (b'{"audio": "a.wav", "text": "x", "start_s": "soon"}', "soon"),
        (b'{"audio": "a.wav", "text": "x", "start_s": NaN}', "start_s"),
        (b'{"audio": "a.wav", "text": "x", "split": "holdout"}', "holdout"),
    ],
)
def test_a_row_that_cannot_be_read_keeps_its_position_with_a_fault(tmp_path: Path, line: bytes, fault: str):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"audio": "ok.wav", "text": "x"}\n' + line + b"\n")
    rows = read_corpus(path)
    assert rows[0].fault is None
    assert fault in str(rows[1].fault)
    rows[1].id.encode("utf-8")


def test_csv_in_another_encoding_faults_only_its_rows(tmp_path: Path):
    (tmp_path / "metadata.csv").write_bytes(b"file_name,text\na.wav,caf\xe9\nb.wav,fine\nc.wav,one,two\n")
    faults = [row.fault for row in read_corpus(tmp_path)]
    assert "UTF-8" in str(faults[0])
    assert faults[1] is None
    assert "header" in str(faults[2])


def test_a_folder_without_usable_metadata_is_named(tmp_path: Path):
    with pytest.raises(ManifestError, match="neither"):
        read_corpus(tmp_path, format="audio_folder")
    (tmp_path / "metadata.csv").write_text("name,text\n")
    with pytest.raises(ManifestError, match="no column"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(ManifestError, match="both"):
        read_corpus(tmp_path)


def test_an_audio_folder_is_read_locally_and_remotely(place: Callable[..., str], encode: Callable[..., bytes]):
    location = place({"test/metadata.csv": b"file_name,text\nsub/a.flac,Hi\n", "test/sub/a.flac": encode()})
    (row,) = read_corpus(location)
    assert (row.id, row.text, row.split) == ("test/sub/a.flac", "Hi", "test")
    assert row.audio == f"{location}/test/sub/a.flac"
    assert len(read_audio(row.audio)) == 8_000


def test_a_csv_of_any_name_may_be_given(tmp_path: Path):
    (tmp_path / "my.csv").write_text("audio,text\na.wav,x\n")
    assert [row.id for row in read_corpus(tmp_path / "my.csv")] == ["a.wav"]


def test_csv_with_a_broken_quote_is_named(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text('file_name,text\na.wav,"x" y\n')
    with pytest.raises(ManifestError, match="line 2"):
        read_corpus(tmp_path)


def test_a_name_met_twice_stays_twice(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,x\na.wav,y\n")
    assert [(row.id, row.text) for row in read_corpus(tmp_path)] == [("a.wav", "x"), ("a.wav", "y")]
