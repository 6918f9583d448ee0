from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sottovoce.data.corpora.files import list_files
from sottovoce.errors import ConfigError, ManifestError


def test_local_files_are_listed_sorted_with_absolute_references(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.txt").write_text("one")
    (tmp_path / "a.txt").write_text("a")
    for location in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        files = list_files(location)
        assert files.names == ("a.txt", "b/1.txt")
        assert files.reference("b/1.txt") == str(tmp_path / "b" / "1.txt")
        assert files.read("b/1.txt") == b"one"
    assert list_files(files) is files


def test_remote_references_keep_their_protocol(memory: MemoryFileSystem):
    memory.pipe("/speech/sub/a.wav", b"x")
    files = list_files("memory://speech")
    assert files.names == ("sub/a.wav",)
    assert files.reference("sub/a.wav") == "memory:///speech/sub/a.wav"
    assert files.id_of(files.reference("sub/a.wav")) == "sub/a.wav"


def test_a_single_file_is_a_corpus_of_its_folder(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text("")
    (tmp_path / "y.jsonl").write_text("")
    files = list_files(tmp_path / "x.jsonl")
    assert (files.names, files.is_single, files.root) == (("x.jsonl",), True, str(tmp_path))


def test_names_in_metadata_may_be_relative_absolute_or_uris(tmp_path: Path, memory: MemoryFileSystem):
    files = list_files(tmp_path)
    assert files.resolve("../a.wav", "one/two") == str(tmp_path / "one" / "a.wav")
    assert files.resolve("/other/./a.wav", "one") == "/other/a.wav"
    assert files.resolve("s3://bucket/a.wav", "one") == "s3://bucket/a.wav"
    assert files.resolve("file:///other/a.wav", "one") == "/other/a.wav"
    assert files.id_of("/other/a.wav") == "/other/a.wav"
    memory.pipe("/speech/m.jsonl", b"")
    remote = list_files("memory://speech")
    assert remote.resolve("../a.wav", "") == "memory:///a.wav"
    assert remote.resolve("/data/a.wav", "") == "/data/a.wav"


def test_clips_beside_common_voice_tables_are_not_listed(tmp_path: Path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp3").write_bytes(b"")
    assert list_files(tmp_path).names == ("clips/a.mp3",)
    (tmp_path / "train.tsv").write_text("")
    assert list_files(tmp_path).names == ("clips", "train.tsv")


@pytest.mark.parametrize(
    ("location", "error", "words"),
    [
        ("/no/such/folder", ManifestError, "no such folder"),
        ("memory://no/such/folder", ManifestError, "no such folder"),
        ("s3://bucket/speech", ConfigError, "s3fs"),
        ("gs://bucket/speech", ConfigError, "gcsfs"),
        ("nonsense://speech", ConfigError, "nonsense"),
        ("simplecache::s3://bucket/speech", ManifestError, "chains"),
    ],
)
def test_a_location_that_cannot_be_read_is_named(location: str, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        list_files(location)


def test_a_file_that_went_away_is_named(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"gone\.csv"):
        list_files(tmp_path).read("gone.csv")


class _Denied(MemoryFileSystem):
    """A place whose owner let nobody in."""

    protocol = "denied"

    def ls(self, path: str, detail: bool = True, **_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")


def test_a_folder_that_may_not_be_listed_is_named(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch):
    memory.pipe("/closed/a.wav", b"x")
    monkeypatch.setattr("sottovoce.data.corpora.files.open_file_system", lambda _: (_Denied(), "/closed"))
    with pytest.raises(ManifestError, match="Permission denied"):
        list_files("denied://closed")
