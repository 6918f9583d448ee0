"""Recordings in rows of Parquet files are stored once, so that each is read by its own bytes."""

import tarfile
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sottovoce.audio.reference import read_bytes
from sottovoce.data.manifest import read_manifest, write_manifest
from sottovoce.data.recording_store import group_rows, name_targets, refer, store_rows
from sottovoce.errors import AudioDecodeError
from sottovoce.schema import Utterance

NUM_ROWS, ROWS_PER_GROUP, ROW_BYTES = 40, 10, 20_000
RECORDINGS = [np.random.default_rng(row).bytes(ROW_BYTES + row) for row in range(NUM_ROWS)]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A Parquet file of the Hub's layout, in four row groups; row 7 holds nothing."""
    audio = pa.array([{"bytes": None if row == 7 else data, "path": "x"} for row, data in enumerate(RECORDINGS)])
    path = tmp_path / "corpus" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"audio": audio, "text": ["a"] * NUM_ROWS}), path, row_group_size=ROWS_PER_GROUP)
    return path


def utterance(row_id: str, audio: str) -> Utterance:
    return Utterance(id=row_id, audio=audio, duration_s=1.0, text="x")


def store_here(utterances: list[Utterance], folder: Path) -> list[Utterance]:
    """What ``store_recordings`` does, without Ray."""
    rows = group_rows(utterances)
    targets = name_targets(rows, folder)
    spans = {location: store_rows(location, rows[location], targets[location]) for location in rows}
    return [refer(one, spans, targets) for one in utterances]


def test_stored_recordings_are_the_same_bytes_and_move_with_their_manifest(shard: Path, tmp_path: Path) -> None:
    rows = [31, 3, 30, 12]
    given = [utterance(f"r{row}", f"{shard}#row={row}") for row in rows] + [utterance("file", str(tmp_path / "a.wav"))]
    stored = store_here(given, tmp_path / "run" / "recordings")
    assert [read_bytes(one.audio) for one in stored[:-1]] == [RECORDINGS[row] for row in rows]
    assert stored[-1] == given[-1]
    assert [one.model_copy(update={"audio": ""}) for one in stored] == [
        one.model_copy(update={"audio": ""}) for one in given
    ]
    write_manifest(stored, tmp_path / "run" / "manifest.jsonl")
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = read_manifest(tmp_path / "moved" / "manifest.jsonl")
    assert read_bytes(moved[0].audio) == RECORDINGS[31]


def test_the_store_is_a_tar_file_that_others_can_read(shard: Path, tmp_path: Path) -> None:
    spans = store_rows(str(shard), [39, 0], tmp_path / "x.tar")
    assert sorted(spans) == [0, 39]
    with tarfile.open(tmp_path / "x.tar") as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        assert {name: file.read() for name, file in members.items() if file} == {
            "000000000": RECORDINGS[0],
            "000000039": RECORDINGS[39],
        }


def test_each_row_group_with_wanted_rows_is_read_once_and_the_others_never(shard: Path, tmp_path: Path) -> None:
    store_rows(str(shard), [0], tmp_path / "warm.tar")
    before = psutil.Process().io_counters().read_chars
    store_rows(str(shard), [0, 1, 2, 9, 5, 38], tmp_path / "x.tar")
    num_read = psutil.Process().io_counters().read_chars - before
    assert num_read < 2.5 * ROWS_PER_GROUP * ROW_BYTES


@pytest.mark.parametrize(
    ("row", "message"), [(7, "#row=7.* holds no audio"), (40, "row 40 lies outside the table of 40")]
)
def test_a_row_that_is_not_there_is_named_and_leaves_no_file(
    shard: Path, tmp_path: Path, row: int, message: str
) -> None:
    with pytest.raises(AudioDecodeError, match=message):
        store_rows(str(shard), [0, row], tmp_path / "store" / "x.tar")
    assert list((tmp_path / "store").iterdir()) == []


def test_files_of_the_same_name_are_stored_apart(tmp_path: Path) -> None:
    targets = name_targets(["a/train.parquet", "s3://b/train.parquet"], tmp_path)
    assert [path.name for path in targets.values()] == ["00000-train.tar", "00001-train.tar"]


def test_speech_without_rows_is_left_alone() -> None:
    given = [utterance("a", "a.wav"), utterance("b", "b.tar#bytes=0-10")]
    assert group_rows(given) == {}
