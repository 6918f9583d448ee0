"""Further columns of a corpus are kept by name, as text, in every layout that has any."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sottovoce.data.corpora.parquet import flatten_rows, parquet_files, parse_parquet_row
from sottovoce.data.corpora.read import read_corpus
from sottovoce.errors import ManifestError

Place = Callable[[dict[str, bytes]], str]
KEEP = ("condition", "microphone")


def _json_line(**values: object) -> bytes:
    return json.dumps({"text": "said", **values}, ensure_ascii=False).encode() + b"\n"


def _shard(**values: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in (("a.wav", b"sound"), ("a.json", _json_line(**values))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SEGMENTS = [
    {"start": 0, "end": 1, "text": "one", "id": 0, "microphone": "boom"},
    {"start": 1, "end": 2, "text": "two", "id": 1},
]
CORPORA: Mapping[str, tuple[dict[str, bytes], list[dict[str, str]]]] = {
    "audio_folder": (
        {"metadata.csv": b"file_name,text,condition,microphone,room\na.wav,x,car,,hall\nb.wav,y,,lapel\n"},
        [{"condition": "car"}, {"microphone": "lapel"}],
    ),
    "audio_folder_json": (
        {"metadata.jsonl": _json_line(file_name="a.wav", condition="Büro", microphone=3, room=[1])},
        [{"condition": "Büro", "microphone": "3"}],
    ),
    "common_voice": (
        {"train.tsv": b"path\tsentence\tcondition\tmicrophone\nb.mp3\tsaid\tcar \t\n", "clips/b.mp3": b""},
        [{"condition": "car "}],
    ),
    "nemo": (
        {"train.jsonl": _json_line(audio_filepath="a.wav", duration=1.5, condition=True, microphone=None)},
        [{"condition": "true"}],
    ),
    "segments": (
        {"x.jsonl": _json_line(audio="a.wav", microphone="desk", condition="car", segments=SEGMENTS)},
        [{"condition": "car", "microphone": "boom"}, {"condition": "car", "microphone": "desk"}],
    ),
    "manifest": (
        {"x.jsonl": _json_line(audio="a.wav", columns={"condition": "car", "microphone": "desk", "room": "hall"})},
        [{"condition": "car", "microphone": "desk"}],
    ),
    "webdataset": ({"x.tar": _shard(condition="car", microphone=0.5)}, [{"condition": "car", "microphone": "0.5"}]),
}


@pytest.mark.parametrize("layout", CORPORA)
def test_named_columns_are_kept_as_text_where_they_have_a_value(place: Place, layout: str) -> None:
    files, expected = CORPORA[layout]
    location = place(files)
    rows = read_corpus(location, keep=KEEP)
    assert [row.fault for row in rows] == [None] * len(rows)
    assert [dict(row.columns) for row in rows] == expected
    assert not any(row.columns for row in read_corpus(location))


def test_a_column_that_no_row_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_json_line(audio="a.wav", accent="x") + _json_line(audio="b.wav", age=3))
    with pytest.raises(ManifestError, match="has no column 'mood' or 'room' to keep; there are accent, age"):
        read_corpus(tmp_path, keep=("mood", "age", "room"))
    (tmp_path / "a.jsonl").rename(tmp_path / "1-2.trans.txt")
    with pytest.raises(ManifestError, match="has no column 'age' to keep; there are none"):
        read_corpus(tmp_path, keep=("age",))


def test_a_column_without_any_value_is_there_and_rows_that_cannot_be_read_are_not_asked(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text,age\na.wav,x,\n")
    assert [dict(row.columns) for row in read_corpus(tmp_path, keep=("age",))] == [{}]
    (tmp_path / "metadata.csv").write_text("file_name,text,age\na.wav,x,1,2\n")
    (row,) = read_corpus(tmp_path, keep=("room",))
    assert row.fault == "metadata.csv:2: has more fields than the header; quote commas"


def test_kept_text_that_cannot_be_written_is_a_fault_of_its_row(tmp_path: Path) -> None:
    rows = [b"a.wav,x,caf\xe9,", b"b.wav,y,,caf\xe9", b"c.wav,z,\0,", b"d.wav,z,bar,"]
    (tmp_path / "metadata.csv").write_bytes(b"\n".join([b"file_name,text,room,other", *rows]))
    first, second, third, fourth = read_corpus(tmp_path, keep=("room",))
    assert (first.fault, first.fault_reason) == ("column room is not UTF-8; save it as UTF-8", "wrong_encoding")
    assert (second.fault, second.text) == (None, "y")
    assert (third.id, third.fault, third.fault_reason) == ("c.wav", "column room holds a NUL character", "invalid_row")
    assert fourth.columns == {"room": "bar"}


def _table(tmp_path: Path, columns: Mapping[str, object], features: Mapping[str, object] | None = None) -> Path:
    table = pa.table({"audio": pa.array([b"1", b"2"]), "text": ["x", "y"], **columns})
    described = json.dumps({"info": {"features": features or {}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": described}), tmp_path / "train.parquet")
    return tmp_path


def _read(location: Path, keep: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the only shard of a folder as Ray Data does, but in this process."""
    (file,) = parquet_files(location, keep=keep)
    table = pq.read_table(file.reference, columns=[file.audio_column, *file.columns], partitioning=None)
    flat = flatten_rows(table, audio_column=file.audio_column, class_names=file.class_names)
    return [dict(parse_parquet_row(values, keep=keep)[0].columns) for values in flat.to_pylist()]


def test_parquet_keeps_columns_of_every_type_that_has_a_text(tmp_path: Path) -> None:
    columns = {
        "room": ["hall", None],
        "mic": pa.array(["a", "b"]).dictionary_encode(),
        "votes": [3, 0],
        "level": pa.array([0.1, float("nan")], pa.float32()),
        "native": [True, False],
        "gender": [1, -1],
        "speaker_id": ["s1", "s2"],
        "nothing": pa.nulls(2),
    }
    location = _table(tmp_path, columns, {"gender": {"names": ["male", "female"], "_type": "ClassLabel"}})
    assert _read(location, tuple(columns)) == [
        {"room": "hall", "mic": "a", "votes": "3", "level": "0.1", "native": "true"}
        | {"gender": "female", "speaker_id": "s1"},
        {"mic": "b", "votes": "0", "native": "false", "speaker_id": "s2"},
    ]
    assert _read(location, ()) == [{}, {}]


def test_parquet_refuses_columns_that_are_missing_or_have_no_text_by_its_footers(tmp_path: Path) -> None:
    location = _table(tmp_path, {"rooms": [["hall"], []], "path": ["a", "b"]})
    with pytest.raises(ManifestError, match="has no column 'room' or 'path' to keep; there are text, rooms"):
        parquet_files(location, keep=("room", "path"))
    with pytest.raises(ManifestError, match=r"rooms has the type list<.*> *, which cannot be read as text, a number"):
        parquet_files(location, keep=("rooms",))
