import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.data.corpora.read import read_corpus
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError

Place = Callable[[dict[str, bytes]], str]


def _lines(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _read(tmp_path: Path, *records: object) -> list[CorpusRow]:
    (tmp_path / "m.jsonl").write_bytes(_lines(*records))
    return read_corpus(tmp_path / "m.jsonl")


def test_our_keys_are_read(tmp_path: Path):
    record = {"id": "1", "audio": "a.wav", "text": "t", "start_s": 1, "end_s": 3.5, "speaker": 3, "language": "de_DE"}
    (row,) = _read(tmp_path, {**record, "task": "translate", "recording": "call 7", "split": "dev"})
    assert row == CorpusRow(
        id="1",
        audio=str(tmp_path / "a.wav"),
        text="t",
        start_s=1.0,
        duration_s=2.5,
        language="de",
        task="translate",
        speaker="3",
        recording="call 7",
        split="validation",
    )


def test_a_nemo_manifest_is_read_locally_and_remotely(place: Place, encode: Callable[..., bytes]):
    piece = {"audio_filepath": "wav/talk.wav", "duration": 0.5, "text": "hello", "lang": "en"}
    location = place(
        {
            "train_manifest.json": _lines(
                {**piece, "offset": 0.0}, {**piece, "offset": 0.5}, {**piece, "offset": 12.25}
            ),
            "wav/talk.wav": encode("WAV", duration_s=2.0),
        }
    )
    rows = read_corpus(f"{location}/train_manifest.json")
    assert [row.id for row in rows] == ["wav/talk.wav", "wav/talk.wav@000000.500", "wav/talk.wav@000012.250"]
    assert [(row.start_s, row.duration_s) for row in rows] == [(0.0, 0.5), (0.5, 0.5), (12.25, 0.5)]
    assert [row.recording for row in rows] == [None, "wav/talk.wav", "wav/talk.wav"]
    waveform = read_audio(rows[1].audio, start_s=rows[1].start_s, duration_s=rows[1].duration_s)
    assert len(waveform) == 8_000


def test_segments_become_rows_of_their_own(tmp_path: Path):
    segments = [
        {"id": 0, "start": 0.0, "end": 12.5, "text": " One.", "words": []},
        {"start_s": 12.5, "end_s": 31.0, "text": "Two.", "speaker": "b"},
        "three",
    ]
    record = {"id": "talk", "audio": "talk.wav", "text": "One. Two.", "duration_s": 31, "speaker": "a"}
    first, second, third = _read(tmp_path, {**record, "split": "train", "segments": segments})
    assert [row.id.removeprefix(str(tmp_path)) for row in (first, second)] == ["talk.wav", "talk.wav@000012.500"]
    assert [(row.start_s, row.duration_s, row.text) for row in (first, second)] == [
        (0.0, 12.5, " One."),
        (12.5, 18.5, "Two."),
    ]
    assert [(row.speaker, row.recording, row.split) for row in (first, second)] == [
        ("a", "talk", "train"),
        ("b", "talk", "train"),
    ]
    assert "a segment that is str" in str(third.fault)


def test_nemo_tasks_and_languages_are_read(tmp_path: Path):
    audio = {"audio_filepath": "a.wav", "text": "x", "source_lang": "de"}
    rows = _read(
        tmp_path,
        {**audio, "target_lang": "de", "taskname": "asr"},
        {**audio, "target_lang": "en", "taskname": "ast"},
        {**audio, "target_lang": "en"},
        {**audio, "target_lang": "de"},
        {**audio, "target_lang": "fr", "taskname": "ast"},
        {**audio, "taskname": "diarize"},
    )
    assert [row.task for row in rows] == ["transcribe", "translate", "translate", "transcribe", None, None]
    assert [row.id for row in rows[:2]] == ["a.wav", "a.wav+translate"]
    assert {row.language for row in rows[:4]} == {"de"}
    assert "English only" in str(rows[4].fault)
    assert "diarize" in str(rows[5].fault)


def test_other_times_of_rows_without_nemo_keys_are_not_ours(tmp_path: Path):
    (row,) = _read(tmp_path, {"audio": "a.wav", "text": "x", "duration": "00:05", "offset": -1, "end": None})
    assert (row.start_s, row.duration_s, row.fault) == (0.0, None, None)


def test_an_end_before_the_start_is_a_fault(tmp_path: Path):
    (row,) = _read(tmp_path, {"audio": "a.wav", "text": "x", "start_s": 2, "end_s": 2})
    assert "ends at 2 s" in str(row.fault)


def test_an_empty_text_is_distinguished_from_a_missing_one(tmp_path: Path):
    rows = _read(tmp_path, {"audio": "a.wav", "text": ""}, {"audio": "b.wav"}, {"audio": "c.wav", "text": None})
    assert [row.text for row in rows] == ["", None, None]


@pytest.mark.parametrize(
    ("language", "code"),
    [("en", "en"), ("pt-BR", "pt"), ("cmn_hans_cn", "zh"), ("nb_no", "no"), ("English", "english")],
)
def test_languages_lose_their_region(tmp_path: Path, language: str, code: str):
    (row,) = _read(tmp_path, {"audio": "a.wav", "text": "x", "language": language})
    assert row.language == code


def test_text_in_another_encoding_names_its_row_and_keeps_the_others(tmp_path: Path):
    good = _lines({"id": "good", "audio": "a.wav", "text": "x"})
    wrong = b'{"id": "latin", "audio": "b.wav", "text": "caf\xe9"}\n'
    utf16 = '{"id": "utf16", "audio": "c.wav"}'.encode("utf-16") + b"\n"
    (tmp_path / "m.jsonl").write_bytes(wrong + good + utf16 + b"\n" + good)
    rows = read_corpus(tmp_path)
    assert [row.id for row in rows] == ["latin", "good", "m.jsonl:3", "good"]
    assert [row.fault is None for row in rows] == [False, True, False, True]
    assert {row.fault_reason for row in rows if row.fault} == {"wrong_encoding"}
    assert rows[0].audio == str(tmp_path / "b.wav")


def test_a_faulty_id_still_keeps_its_row(tmp_path: Path):
    rows = _read(tmp_path, {"id": ["x"], "audio": "a.wav"}, {"id": "b", "audio": 1.5}, {"id": "c"}, {"id": [1]})
    assert [row.id for row in rows] == ["a.wav", "b", "c", "m.jsonl:4"]
    assert all(row.fault for row in rows)


def test_files_of_a_folder_name_the_split(place: Place):
    record = _lines({"audio": "a.wav", "text": "x"})
    rows = read_corpus(place({"train.jsonl": record, "sub/dev_other.jsonl": record, "more.jsonl": record}))
    assert [(row.id, row.split) for row in rows] == [("a.wav", None), ("sub/a.wav", "validation"), ("a.wav", "train")]


def test_a_folder_without_manifests_is_named(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"holds no \.jsonl"):
        read_corpus(tmp_path, format="jsonl")


def test_rows_that_python_cannot_parse_keep_their_position(tmp_path: Path):
    (tmp_path / "m.jsonl").write_bytes(b'{"audio": ' + b"9" * 5_000 + b"}\n" + b"[" * 100_000 + b"\n")
    assert ["JSON" in str(row.fault) for row in read_corpus(tmp_path)] == [True, True]


def test_a_folder_whose_name_is_no_utf8_faults_its_rows(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "m.jsonl").write_bytes(_lines({"id": "a", "audio": "a.wav"}, {"audio": "b.wav"}))
    rows = read_corpus(tmp_path)
    assert [(row.id, row.audio) for row in rows] == [("a", ""), ("caf\\xe9/m.jsonl:2", "")]
    assert {row.fault_reason for row in rows if row.fault} == {"wrong_encoding"}
