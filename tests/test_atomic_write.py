import ast
from pathlib import Path

import pytest

from sottovoce.atomic_write import atomic_write


def test_a_file_replaces_the_one_before_and_leaves_no_other_file(tmp_path: Path) -> None:
    for text in ("one", "zw\u00f6lf"):
        atomic_write(tmp_path / "record.json", text)
        assert (tmp_path / "record.json").read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_text_that_is_cut_short_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    path.write_text("before", encoding="utf-8")

    def cut_short(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text[:3].encode(encoding))
        raise OSError("no space")

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(OSError, match="no space"):
        atomic_write(path, "after it")
    assert path.read_text(encoding="utf-8") == "before"


def test_training_writes_no_text_in_place(root: Path) -> None:
    files = sorted((root / "platform" / "sottovoce" / "train").rglob("*.py"))
    assert files
    writers = {
        path.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "write_text"
    }
    assert not writers
