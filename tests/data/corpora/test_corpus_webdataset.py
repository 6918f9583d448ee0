import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.data.corpora.read import read_corpus
from sottovoce.errors import ManifestError

Place = Callable[[dict[str, bytes]], str]


def _tar(*members: tuple[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_shards_are_read_and_members_are_referred_to_by_their_bytes(place: Place, encode: Callable[..., bytes]):
    flac, wav = encode("FLAC"), encode("WAV", duration_s=1.0)
    about = {"text": "Later.", "language": "de", "speaker": 7, "task": "transcribe", "duration": 1.0}
    location = place(
        {
            "train/000000.tar": _tar(("a/utt1.flac", flac), ("a/utt1.txt", "Grüße, you.\n".encode())),
            "dev-000001.tar": _tar(("utt2.seg.wav", wav), ("utt2.json", json.dumps(about).encode())),
        }
    )
    second, first = read_corpus(location)
    assert (first.id, first.text, first.split) == ("train/000000.tar/a/utt1", "Grüße, you.", "train")
    assert (second.id, second.text, second.split) == ("dev-000001.tar/utt2", "Later.", "validation")
    assert (second.language, second.speaker, second.task, second.duration_s) == ("de", "7", "transcribe", None)
    assert first.audio.startswith(f"{location}/train/000000.tar#bytes=")
    start, stop = (int(number) for number in first.audio.rpartition("=")[2].split("-"))
    assert _read(location, "train/000000.tar")[start:stop] == flac
    assert len(read_audio(second.audio)) == 16_000


def _read(location: str, name: str) -> bytes:
    import fsspec

    with fsspec.open(f"{location}/{name}", "rb") as file:
        return file.read()


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_offset_is_right_in_every_kind_of_tar(tmp_path: Path, tar_format: int):
    names = ["x.wav", "ä/" + "long" * 24 + ".wav"]  # a name of its own header, but for ustar
    names = names[: 1 if tar_format == tarfile.USTAR_FORMAT else 2]
    content = _tar(*((name, f"sound of {name}".encode()) for name in names), tar_format=tar_format)
    (tmp_path / "s.tar").write_bytes(content)
    rows = read_corpus(tmp_path)
    assert len(rows) == len(names)
    for row, name in zip(rows, names, strict=True):
        start, stop = (int(number) for number in row.audio.rpartition("=")[2].split("-"))
        assert content[start:stop].decode() == f"sound of {name}"


def test_members_that_make_no_row_of_one_recording_are_faults(tmp_path: Path):
    members = [
        ("good.wav", b"1"),
        ("good.txt", b"x"),
        ("good.cls", b"3"),
        ("two.wav", b"1"),
        ("two.flac", b"2"),
        ("none.txt", b"x"),
        ("latin.wav", b"1"),
        ("latin.txt", b"caf\xe9"),
        ("json.wav", b"1"),
        ("json.json", b"["),
        ("bytes.wav", b"1"),
        ("bytes.json", b'{"text": "caf\xe9"}'),
        ("silent.wav", b"1"),
        ("._good.wav", b"1"),
        ("README", b"1"),
    ]
    (tmp_path / "s.tar").write_bytes(_tar(*members))
    rows = {row.id.removeprefix("s.tar/"): row for row in read_corpus(tmp_path)}
    assert list(rows) == ["good", "two", "none", "latin", "json", "bytes", "silent"]
    assert {name for name, row in rows.items() if row.fault} == {"two", "none", "latin", "json", "bytes"}
    assert "2 recordings" in str(rows["two"].fault)
    assert "0 recordings" in str(rows["none"].fault)
    assert "JSON" in str(rows["json"].fault)
    assert rows["latin"].fault_reason == rows["bytes"].fault_reason == "wrong_encoding"
    assert rows["silent"].text is None


def test_compressed_truncated_and_foreign_shards_are_named_with_the_remedy(tmp_path: Path):
    content = _tar(("a.wav", bytes(2_000)), ("a.txt", b"x" * 600))
    for name in ("s.tar.gz", "t.tgz"):
        (tmp_path / name).write_bytes(gzip.compress(content))
        with pytest.raises(ManifestError, match=r"unpack it to a plain \.tar"):
            read_corpus(tmp_path / name)
    for broken in (gzip.compress(content), content[:1_800], content[:3_700], b"no tar at all" * 100):
        (tmp_path / "s.tar").write_bytes(broken)
        with pytest.raises(ManifestError, match=r"s\.tar: is no whole, uncompressed tar"):
            read_corpus(tmp_path / "s.tar")


def test_a_folder_without_shards_is_named(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"holds no \.tar"):
        read_corpus(tmp_path, format="webdataset")


def test_a_member_whose_name_is_no_utf8_is_a_row_like_any_other(tmp_path: Path):
    shard = _tar(("cafe.wav", b"1"), ("cafe.txt", b"x"), tar_format=tarfile.USTAR_FORMAT)
    old, new = b"cafe.", b"caf\xe9."
    content = bytearray(shard.replace(old, new))
    for start in (0, 1_024):  # the sum of the header's bytes stands in it
        header = content[start : start + 512]
        header[148:156] = b" " * 8
        content[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    (tmp_path / "s.tar").write_bytes(content)
    (row,) = read_corpus(tmp_path)
    assert (row.id, row.text, row.fault) == ("s.tar/caf\\xe9", "x", None)
