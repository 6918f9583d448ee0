from pathlib import Path

import pytest

from sottovoce.data.manifest import write_manifest, write_rejects
from sottovoce.data.mixing import read_speech
from sottovoce.errors import ManifestError
from sottovoce.schema import Reject, Utterance


def write(folder: Path, ids: list[str], *, corpus: str | None = None, split: str = "train") -> Path:
    utterances = [
        Utterance(id=one, audio=f"{one}.wav", duration_s=1.0, text=one, corpus=corpus, split=split) for one in ids
    ]
    write_manifest(utterances, folder / "manifest.jsonl")
    write_rejects([Reject(id=f"no-{folder.name}", audio="x.wav", reason="empty", detail="")], folder / "rejects.jsonl")
    return folder / "manifest.jsonl"


def test_one_manifest_keeps_its_ids_and_corpora(tmp_path: Path) -> None:
    speech = read_speech([write(tmp_path / "old", ["a", "b"])])
    assert [(one.id, one.corpus) for one in speech.manifests[0]] == [("a", None), ("b", None)]


def test_ids_of_several_manifests_begin_with_the_corpus_or_the_folder(tmp_path: Path) -> None:
    speech = read_speech([write(tmp_path / "old", ["a"]), write(tmp_path / "new", ["a"], corpus="dictation")])
    assert [[one.id for one in manifest] for manifest in speech.manifests] == [["old/a"], ["dictation/a"]]
    assert [one.corpus for manifest in speech.manifests for one in manifest] == ["old", "dictation"]
    assert [reject.id for reject in speech.rejects] == ["no-old", "no-new"]


def test_a_split_combines_all_manifests(tmp_path: Path) -> None:
    manifests = [write(tmp_path / "old", ["a"], split="validation"), write(tmp_path / "new", ["b"], split="validation")]
    speech = read_speech([*manifests, write(tmp_path / "more", ["c"])])
    assert [one.id for one in speech.split("validation")] == ["old/a", "new/b"]
    assert [one.id for one in speech.split("train")] == ["more/c"]
    assert not speech.split("test")


def test_an_id_in_two_manifests_names_both_and_the_remedy(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1" / "data", ["a"]), write(tmp_path / "2" / "data", ["a"])
    with pytest.raises(
        ManifestError, match=r"'data/a' is also in .*1/data/manifest.jsonl; prepare each corpus with a name"
    ):
        read_speech([first, second])


def test_different_corpora_with_one_name_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = write(tmp_path / "1", ["a"], corpus="corpus"), write(tmp_path / "2", ["b"], corpus="corpus")
    read_speech([first, second])
    assert "both call their corpus 'corpus'" in caplog.text
    assert "--prepare.name" in caplog.text
    caplog.clear()
    read_speech([first, write(tmp_path / "3", ["c"], corpus="dictation")])
    assert not caplog.records
