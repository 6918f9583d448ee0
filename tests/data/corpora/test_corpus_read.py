from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from pydantic import Field, ValidationError

from sottovoce.config import Config, load_config
from sottovoce.data.corpora import read
from sottovoce.data.corpora.files import list_files
from sottovoce.data.corpora.read import CorpusFormat, CorpusLayout, describe_formats, detect_format, read_corpus
from sottovoce.data.prepare import PrepareConfig
from sottovoce.errors import ManifestError

# What a developer adds to the table for a layout of their own; its reader would be in a file beside the others.
MADE_UP_ENTRY = """
LAYOUTS["made_up"] = Layout(
    summary="tables that nobody writes",
    signs=(".madeup",),
    read=lambda files: [CorpusRow(id=name, audio=files.reference(name)) for name in files.ending(".madeup")],
)
"""


def _write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (("train/metadata.csv", "train/a.wav"), "audio_folder"),
        (("metadata.jsonl", "manifest.jsonl"), "audio_folder"),
        (("train.jsonl", "dev.jsonl"), "jsonl"),
        (("clips/a.mp3", "validated.tsv"), "common_voice"),
        (("de/clips/a.mp3", "de/train.tsv", "fr/clips/b.mp3", "fr/train.tsv"), "common_voice"),
        (("dev-clean/84/121123/84-121123.trans.txt",), "librispeech"),
        (("data/train-00000-of-00001.parquet", "README.md"), "parquet"),
        (("shards/train-000000.tar",), "webdataset"),
        (("train-000000.tar.gz",), "webdataset"),
        (("talk.mp4", "talk.srt"), "subtitles"),
        (("metadata.csv", "talk.wav", "talk.vtt"), "audio_folder"),
        (("train.jsonl", "talk.wav", "talk.vtt"), "jsonl"),
    ],
)
def test_the_layout_is_detected_from_the_files(tmp_path: Path, names: tuple[str, ...], layout: CorpusLayout):
    assert detect_format(_write(tmp_path, *names)) == layout


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("my.csv", "audio_folder"),
        ("metadata.jsonl", "audio_folder"),
        ("train_manifest.json", "jsonl"),
        ("MY.JSONL", "jsonl"),
        ("other.tsv", "common_voice"),
        ("84-121123.trans.txt", "librispeech"),
        ("x.parquet", "parquet"),
        ("x.tar", "webdataset"),
    ],
)
def test_the_layout_of_a_single_file_is_detected_from_its_name(tmp_path: Path, name: str, layout: CorpusLayout):
    assert detect_format(_write(tmp_path, name, "beside.tar") / name) == layout


def test_unknown_and_mixed_layouts_raise_with_what_was_looked_for(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"looked for .*metadata\.csv.*trans\.txt.*parquet"):
        read_corpus(tmp_path)
    _write(tmp_path, "a.parquet", "b.tar")
    with pytest.raises(ManifestError, match="parquet or webdataset; say which with format"):
        read_corpus(tmp_path)
    assert detect_format(tmp_path, "webdataset") == "webdataset"


def test_parquet_is_streamed_and_not_listed(tmp_path: Path):
    with pytest.raises(ManifestError, match="stream_parquet"):
        read_corpus(_write(tmp_path, "a.parquet"))


def test_listed_files_are_not_listed_again(tmp_path: Path):
    files = list_files(_write(tmp_path, "a.jsonl"))
    assert detect_format(files) == "jsonl"
    assert read_corpus(files) == []


def test_every_layout_can_be_selected():
    assert set(get_args(CorpusFormat)) == {"auto", *get_args(CorpusLayout)}


def test_one_entry_in_the_table_is_all_a_new_layout_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = Path(str(read.__file__)).read_text(encoding="utf-8")
    before, mark, after = source.partition("\nif TYPE_CHECKING:")
    assert mark
    extended = ModuleType("extended_read")
    exec(compile(before + MADE_UP_ENTRY + mark + after, "extended_read", "exec"), vars(extended))
    corpus = _write(tmp_path, "a.madeup")
    assert extended.detect_format(corpus) == "made_up"
    assert [row.id for row in extended.read_corpus(corpus)] == ["a.madeup"]
    assert ".madeup" in extended.table_suffixes()

    class MadeUpConfig(Config):
        """Settings that use the extended table as ``PrepareConfig`` uses the real one."""

        format: extended.CorpusFormat = Field(default="auto", description=extended.describe_formats())

    assert load_config(MadeUpConfig, ["--format", "made_up"]).format == "made_up"
    with pytest.raises(SystemExit):
        load_config(MadeUpConfig, ["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "made_up: tables that nobody writes" in shown


def test_the_setting_accepts_and_describes_the_layouts_of_the_table():
    field = PrepareConfig.model_fields["format"]
    assert field.annotation == CorpusFormat
    assert field.description == describe_formats()
    with pytest.raises(ValidationError, match="audio_folder"):
        PrepareConfig(format="vinyl")
