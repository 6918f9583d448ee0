from collections.abc import Callable
from pathlib import Path

import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.data.corpora.read import read_corpus
from sottovoce.errors import ManifestError

Place = Callable[[dict[str, bytes]], str]
HEADER = (
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\t"
    "age\tgender\taccents\tvariant\tlocale\tsegment"
)


def _table(*rows: tuple[str, str, str], locale: str = "en") -> bytes:
    lines = [f"{speaker}\t{clip}\t5\t{text}\t\t2\t0\t\t\t\t\t{locale}\t" for speaker, clip, text in rows]
    return "\n".join([HEADER, *lines, ""]).encode()


def test_a_release_is_read_by_its_splits(place: Place, encode: Callable[..., bytes]):
    location = place(
        {
            "clips/common_voice_en_1.mp3": encode("MP3"),
            "train.tsv": _table(("ab12", "common_voice_en_1.mp3", 'He said "no" — twice.'), ("cd", "2.mp3", '"Open')),
            "dev.tsv": _table(("ef", "3.mp3", "Dev.")),
            "test.tsv": _table(("gh", "4.mp3", "Test.")),
            "validated.tsv": _table(("ab12", "common_voice_en_1.mp3", "Twice?")),
            "other.tsv": _table(("ij", "5.mp3", "Unconfirmed.")),
            "invalidated.tsv": _table(("ij", "6.mp3", "Wrong.")),
            "reported.tsv": b"sentence\tsentence_id\tlocale\treason\nx\t1\ten\tgrammar\n",
        }
    )
    rows = read_corpus(location)
    assert [row.id for row in rows] == ["clips/3.mp3", "clips/4.mp3", "clips/common_voice_en_1.mp3", "clips/2.mp3"]
    assert [row.split for row in rows] == ["validation", "test", "train", "train"]
    assert [row.text for row in rows[2:]] == ['He said "no" — twice.', '"Open']
    assert (rows[2].speaker, rows[2].language, rows[2].audio) == ("ab12", "en", f"{location}/{rows[2].id}")
    assert len(read_audio(rows[2].audio)) == pytest.approx(8_000, abs=2_500)  # mp3 pads to whole frames


def test_validated_is_read_where_there_are_no_splits_and_languages_are_told_apart(place: Place):
    location = place(
        {
            "sv-SE/clips/a.mp3": b"",
            "sv-SE/validated.tsv": _table(("s", "a.mp3", "Hej."), locale="sv-SE"),
            "pt/clips/a.mp3": b"",
            "pt/train.tsv": _table(("p", "a.mp3", "Oi."), locale="pt"),
            "pt/validated.tsv": _table(("p", "a.mp3", "Oi."), locale="pt"),
        }
    )
    rows = read_corpus(location)
    assert [(row.id, row.language, row.split) for row in rows] == [
        ("pt/clips/a.mp3", "pt", "train"),
        ("sv-SE/clips/a.mp3", "sv", None),
    ]


def test_one_table_may_be_given(tmp_path: Path):
    (tmp_path / "other.tsv").write_bytes(_table(("a", "a.mp3", "x")))
    (row,) = read_corpus(tmp_path / "other.tsv")
    assert (row.audio, row.split) == (str(tmp_path / "clips" / "a.mp3"), None)


def test_wrong_encoding_and_missing_fields_fault_only_their_rows(tmp_path: Path):
    table = _table(("a", "a.mp3", "caf\u00e9"), ("b", "b.mp3", "fine"), ("c", "", "no clip"))
    table = table.replace("caf\u00e9".encode(), b"caf\xe9") + b"d\td.mp3\tshort\n"
    (tmp_path / "train.tsv").write_bytes(table.replace(b"\n", b"\r\n"))
    rows = read_corpus(tmp_path)
    assert [row.id for row in rows] == ["clips/a.mp3", "clips/b.mp3", "train.tsv:4", "train.tsv:5"]
    assert rows[1].fault is None
    assert rows[0].fault_reason == "wrong_encoding"
    assert "UTF-8" in str(rows[0].fault)
    assert "names no audio" in str(rows[2].fault)
    assert "3 fields where the header has 13" in str(rows[3].fault)
    assert {rows[2].fault_reason, rows[3].fault_reason} == {"invalid_row"}


def test_tables_without_their_columns_or_none_at_all_are_named(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"neither train\.tsv"):
        read_corpus(tmp_path, format="common_voice")
    (tmp_path / "train.tsv").write_text("client_id\tpath\ttext\n")
    with pytest.raises(ManifestError, match="no column sentence"):
        read_corpus(tmp_path)
