from pathlib import Path

import pytest

from sottovoce.data.manifest import (
    read_manifest,
    read_rejects,
    read_warnings,
    write_manifest,
    write_rejects,
    write_warnings,
)
from sottovoce.errors import ManifestError
from sottovoce.schema import Reject, RowWarning, Utterance


def utterance(row_id: str, audio: Path | str) -> Utterance:
    return Utterance(id=row_id, audio=str(audio), duration_s=1.5, text="naïve 你好", speaker="a", split="test")


def test_a_manifest_reads_back_unchanged_and_moves_with_its_folder(tmp_path: Path):
    inside, outside = tmp_path / "run" / "a.wav", tmp_path / "b.wav"
    utterances = [utterance("a", inside), utterance("b", outside)]
    write_manifest(utterances, tmp_path / "run" / "manifest.jsonl")
    assert read_manifest(tmp_path / "run" / "manifest.jsonl") == utterances
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = read_manifest(tmp_path / "moved" / "manifest.jsonl")
    assert [row.audio for row in moved] == [str(tmp_path / "moved" / "a.wav"), str(outside)]


def test_a_line_has_further_columns_only_where_there_are_any(tmp_path: Path):
    plain, described = utterance("a", "/a.wav"), utterance("b", "/b.wav")
    described = described.model_copy(update={"columns": {"room": "Büro"}})
    write_manifest([plain, described], tmp_path / "manifest.jsonl")
    line = (
        '{"id":"%s","audio":"/%s.wav","start_s":0.0,"duration_s":1.5,"text":"naïve 你好","language":"en",'
        '"task":"transcribe","speaker":"a","recording":null,"corpus":null,"split":"test"%s}\n'
    )
    written = (tmp_path / "manifest.jsonl").read_text(encoding="utf-8")
    assert written == line % ("a", "a", "") + line % ("b", "b", ',"columns":{"room":"Büro"}')
    assert read_manifest(tmp_path / "manifest.jsonl") == [plain, described]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", "audio": "b.wav", "text": "b", "duration_s": -1}', "line 3, field duration_s"),
        ('{"id": "b", "audio": "b.wav", "duration_s": 1}', "line 3, field text"),
        ("not json", "line 3"),
        ('{"id": "a", "audio": "b.wav", "text": "b", "duration_s": 1}', "line 3, field id: 'a' is already on line 1"),
    ],
)
def test_a_wrong_line_is_named_with_its_number_and_field(tmp_path: Path, line: str, message: str):
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "a", "audio": "a.wav", "text": "a", "duration_s": 1}\n\n' + line + "\n")
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_a_missing_manifest_and_one_in_another_encoding_are_named(tmp_path: Path):
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "manifest.jsonl")
    (tmp_path / "manifest.jsonl").write_bytes(b'{"id": "\xe9"}\n')
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "manifest.jsonl")


@pytest.mark.parametrize(
    "audio", ["s3://bucket/a.wav", "memory://x/shard.tar#bytes=10-90", "hf://datasets/o/n/a#row=3"]
)
def test_a_uri_reads_back_unchanged(tmp_path: Path, audio: str):
    write_manifest([utterance("a", audio)], tmp_path / "manifest.jsonl")
    assert [row.audio for row in read_manifest(tmp_path / "manifest.jsonl")] == [audio]


def test_a_part_of_a_file_moves_with_the_folder(tmp_path: Path):
    write_manifest([utterance("a", tmp_path / "run" / "shard.tar#bytes=10-90")], tmp_path / "run" / "manifest.jsonl")
    (tmp_path / "run").rename(tmp_path / "moved")
    (row,) = read_manifest(tmp_path / "moved" / "manifest.jsonl")
    assert row.audio == str(tmp_path / "moved" / "shard.tar#bytes=10-90")


def test_rejects_and_warnings_read_back_unchanged_one_per_line(tmp_path: Path):
    rejects = [Reject(id="a", audio="a.wav", reason="silent", detail="x")] * 2
    warnings = [RowWarning(id="b", audio="b.wav", kind="clipped", detail="x")]
    write_rejects(rejects, tmp_path / "rejects.jsonl")
    write_warnings(warnings, tmp_path / "warnings.jsonl")
    assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == 2
    assert read_rejects(tmp_path / "rejects.jsonl") == rejects
    assert read_warnings(tmp_path / "warnings.jsonl") == warnings


def test_a_missing_file_of_rejects_or_warnings_is_empty_and_a_wrong_line_is_named(tmp_path: Path):
    assert read_rejects(tmp_path / "rejects.jsonl") == []
    assert read_warnings(tmp_path / "warnings.jsonl") == []
    (tmp_path / "rejects.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(ManifestError, match="a line is no reject"):
        read_rejects(tmp_path / "rejects.jsonl")
