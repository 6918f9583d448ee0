"""Byte order marks, UTF-16 and other separators, in every layout whose metadata is text."""

import codecs
import io
import json
import tarfile
from pathlib import Path

import pytest

from sottovoce.data.corpora.fields import parse_fields
from sottovoce.data.corpora.files import utf8_bytes
from sottovoce.data.corpora.read import read_corpus
from sottovoce.errors import ManifestError

BOM = codecs.BOM_UTF8
TEXTS = {
    "metadata.csv": "file_name,text\na.wav,Grüße\n",
    "metadata.jsonl": '{"file_name": "a.wav", "text": "Grüße"}\n',
    "manifest.jsonl": '{"audio": "a.wav", "text": "Grüße"}\n',
    "manifest.json": '{"audio_filepath": "a.wav", "text": "Grüße"}\n',
    "train.tsv": "path\tsentence\na.wav\tGrüße\n",
    "1-2.trans.txt": "1-2-0000 Grüße\n",
}
ENCODINGS = {
    "UTF-16 with a mark": (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    "UTF-16, big-endian": (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
    "UTF-16 without a mark": (b"", "utf-16-le", "UTF-16"),
    "UTF-16, big-endian, without a mark": (b"", "utf-16-be", "UTF-16"),
    "UTF-32 with a mark": (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    "UTF-32 without a mark": (b"", "utf-32-be", "UTF-32"),
}


def _write_shard(path: Path, **members: bytes) -> None:
    """Write a shard of one utterance, with its members by suffix."""
    with tarfile.open(path, "w") as tar:
        for suffix, content in {"wav": b"sound", **members}.items():
            info = tarfile.TarInfo(f"u.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("name", TEXTS)
def test_a_byte_order_mark_before_utf8_changes_nothing(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    (plain,) = read_corpus(tmp_path / name)
    (tmp_path / name).write_bytes(BOM + TEXTS[name].encode())
    assert read_corpus(tmp_path / name) == [plain]
    assert (plain.text, plain.fault) == ("Grüße", None)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"txt": BOM + "Grüße.\r\n".encode()}, "Grüße."),
        ({"json": BOM + '{"text": "Grüße.", "language": "de"}'.encode()}, "Grüße."),
        ({"json": BOM + b'{"text": "No."}', "txt": BOM + b"Yes."}, "Yes."),
        ({"txt": BOM}, ""),
    ],
)
def test_labels_of_a_shard_come_without_a_byte_order_mark(tmp_path: Path, members: dict[str, bytes], text: str):
    _write_shard(tmp_path / "s.tar", **members)
    (row,) = read_corpus(tmp_path)
    assert (row.text, row.fault) == (text, None)


def test_a_mark_that_was_copied_into_a_record_is_no_part_of_its_text():
    record = {"text": "\ufeffHello.", "speaker": "\ufeffs1", "language": "\ufeffde"}
    row = parse_fields(record, location="x", row_id="x", audio="a.wav")
    assert (row.text, row.speaker, row.language) == ("Hello.", "s1", "de")
    assert parse_fields({"text": "\ufeff"}, location="x", row_id="x", audio="a.wav").text == ""


def test_manifests_joined_from_files_with_marks_are_read(tmp_path: Path):
    record = BOM + TEXTS["manifest.jsonl"].encode()
    (tmp_path / "m.jsonl").write_bytes(record + record)
    assert [(row.text, row.fault) for row in read_corpus(tmp_path)] == [("Grüße", None)] * 2


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", TEXTS)
def test_a_file_in_utf16_is_refused_by_its_name_with_the_remedy(tmp_path: Path, name: str, encoding: str):
    mark, codec, shown = ENCODINGS[encoding]
    (tmp_path / name).write_bytes(mark + TEXTS[name].encode(codec))
    with pytest.raises(ManifestError, match=rf"{name}: is {shown}; save it as UTF-8"):
        read_corpus(tmp_path / name)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["txt", "json"])
def test_a_member_in_utf16_faults_its_row_by_its_name_with_the_remedy(tmp_path: Path, kind: str, encoding: str):
    mark, codec, shown = ENCODINGS[encoding]
    _write_shard(tmp_path / "s.tar", **{kind: mark + json.dumps({"text": "Hello."}).encode(codec)})
    (row,) = read_corpus(tmp_path)
    assert row.fault == f"s.tar/u: its .{kind} is {shown}; save it as UTF-8"
    assert row.fault_reason == "wrong_encoding"


@pytest.mark.parametrize("text", ["", "a", "ab", "é", "日本語", "ÿþ", "\U0001f600", "a\n\n\n"])
def test_short_and_foreign_texts_in_utf8_are_not_taken_for_utf16(text: str):
    assert utf8_bytes(text.encode()) == text.encode()
    assert utf8_bytes(BOM + text.encode()) == text.encode()


@pytest.mark.parametrize(
    ("name", "text", "found", "wanted"),
    [
        ("metadata.csv", "file_name;text\na.wav;x\n", "semicolons", "commas"),
        ("metadata.csv", '"file_name";"text"\r\n"a.wav";"x"\r\n', "semicolons", "commas"),
        ("metadata.csv", "file_name;comment, if any\na.wav;x\n", "semicolons", "commas"),
        ("metadata.csv", "file_name\ttext\na.wav\tx\n", "tabs", "commas"),
        ("my.csv", "text | audio\nx | a.wav\n", "vertical bars", "commas"),
        ("train.tsv", "path,sentence\na.wav,x\n", "commas", "tabs"),
        ("train.tsv", "client_id;path;sentence\r\n1;a.wav;x\r\n", "semicolons", "tabs"),
    ],
)
def test_a_table_with_another_separator_is_refused_by_its_name_with_the_remedy(
    tmp_path: Path, name: str, text: str, found: str, wanted: str
):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    message = f"{name}: has its columns separated by {found}; save it with {wanted} between them"
    with pytest.raises(ManifestError, match=message):
        read_corpus(tmp_path / name)


def test_other_separators_in_the_names_of_columns_are_no_separators(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("file_name,text,notes;text|more\na.wav,one;two,\n", encoding="utf-8")
    assert [row.text for row in read_corpus(tmp_path)] == ["one;two"]
