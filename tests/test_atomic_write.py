import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sottovoce.atomic_write import atomic_write, sync_folder


def test_a_file_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for text in ("one", "zw\u00f6lf\n"):
        atomic_write(tmp_path / "record.json", text)
        assert (tmp_path / "record.json").read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_parts_are_written_in_order(tmp_path: Path) -> None:
    atomic_write(tmp_path / "lines.jsonl", (f"{number}\n" for number in range(3)))
    assert (tmp_path / "lines.jsonl").read_bytes() == b"0\n1\n2\n"


def test_a_text_that_is_cut_short_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("before", encoding="utf-8")

    def cut_short() -> Iterator[str]:
        yield "aft"
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        atomic_write(path, cut_short())
    assert path.read_text(encoding="utf-8") == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["record.json"]


def test_file_and_folder_are_synced_where_the_text_must_survive_a_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    atomic_write(tmp_path / "record.json", "one")
    assert synced == []
    atomic_write(tmp_path / "record.json", "two", survives_power_loss=True)
    assert synced == [(tmp_path / "record.json").stat().st_ino, tmp_path.stat().st_ino]


def test_a_mount_that_cannot_sync_folders_is_accepted_and_one_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [OSError(number, os.strerror(number)) for number in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO)]

    def refuse(_: int) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(os, "fsync", refuse)
    for _ in range(3):
        sync_folder(tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def test_training_writes_no_text_in_place(root: Path) -> None:
    files = sorted((root / "platform" / "sottovoce" / "train").rglob("*.py"))
    assert files
    writers = {
        path.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "write_text"
    }
    assert writers == set()
