import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sottovoce.audio import parquet_rows
from sottovoce.audio.parquet_rows import find_audio_column, read_row
from sottovoce.errors import AudioDecodeError

NUM_ROWS = 23
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def recording(row: int) -> bytes:
    return bytes([row]) * (1_000 + row)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    parquet_rows._kept.clear()
    yield
    parquet_rows._kept.clear()


@pytest.fixture(params=["struct", "binary", "view", "dictionary", "struct of dictionaries"])
def table(request: pytest.FixtureRequest) -> pa.Table:
    rows = [recording(row) for row in range(NUM_ROWS)]
    if request.param not in ("struct", "binary"):
        encoded = pa.array(rows, pa.binary_view()) if request.param == "view" else pa.array(rows).dictionary_encode()
        audio = pa.StructArray.from_arrays([encoded], ["bytes"]) if request.param.startswith("struct") else encoded
        return pa.table({"text": ["a"] * NUM_ROWS, "audio": audio})
    audio = pa.array([{"bytes": row, "path": "x.wav"} for row in rows], STRUCT) if request.param == "struct" else rows
    return pa.table({"text": ["a"] * NUM_ROWS, "audio": audio})


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
def test_every_row_is_found_in_its_row_group(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
):
    monkeypatch.setattr(parquet_rows, "_MAX_KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(parquet_rows, "_ROWS_AT_ONCE", 3)
    path = f"{tmp_path}/a.parquet"
    pq.write_table(table, path, row_group_size=10)
    for row in (0, 9, 10, 22, 15, 1):
        assert read_row(path, row) == recording(row)
    assert len(parquet_rows._kept) == (0 if kept_bytes == 0 else 2)


def test_threads_read_the_same_rows(table: pa.Table, tmp_path: Path):
    path = f"{tmp_path}/a.parquet"
    pq.write_table(table, path, row_group_size=4)
    rows = np.random.default_rng(0).integers(0, NUM_ROWS, 200).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: read_row(path, row), rows)) == [recording(row) for row in rows]


def test_neighbours_are_read_once(table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = f"{tmp_path}/a.parquet"
    pq.write_table(table, path, row_group_size=10)
    opened: list[object] = []
    open_parquet = parquet_rows._open_parquet
    monkeypatch.setattr(parquet_rows, "_open_parquet", lambda file: opened.append(file) or open_parquet(file))
    for row in range(NUM_ROWS):
        read_row(path, row)
    assert len(opened) == 3


def test_a_file_written_anew_is_read_anew(table: pa.Table, tmp_path: Path):
    path = f"{tmp_path}/a.parquet"
    pq.write_table(table, path)
    assert read_row(path, 3) == recording(3)
    pq.write_table(table.slice(1), path)
    assert read_row(path, 3) == recording(4)


def test_remote_tables_are_read(table: pa.Table, tmp_path: Path):
    pq.write_table(table, tmp_path / "a.parquet")
    fsspec.filesystem("memory").pipe_file("/test_parquet_rows/a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert read_row("memory://test_parquet_rows/a.parquet", 7) == recording(7)


def test_only_the_audio_column_of_one_row_group_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)
    columns = {"audio": [random.bytes(1_000) for _ in range(100)], "other": [random.bytes(50_000) for _ in range(100)]}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=10)
    counted = CountingFile(path)
    monkeypatch.setattr(parquet_rows, "_open", lambda _location: counted)
    assert read_row(str(path), 55) == columns["audio"][55]
    assert counted.num_read < 100_000  # of 5 MB: a footer of 64 KiB at most, and 10 rows


class CountingFile:
    """A file that counts what is read of it."""

    closed = False

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.num_read = 0
        self.seek, self.tell = self.file.seek, self.file.tell

    def __enter__(self) -> "CountingFile":
        return self

    def __exit__(self, *_reason: object) -> None:
        self.file.close()

    def read(self, num_bytes: int = -1) -> bytes:
        data = self.file.read(num_bytes)
        self.num_read += len(data)
        return data


def test_a_row_outside_the_table_is_an_error_that_names_it(table: pa.Table, tmp_path: Path):
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(AudioDecodeError, match="row 23 lies outside the table of 23 rows"):
        read_row(f"{tmp_path}/a.parquet", 23)


def test_a_row_without_audio_is_an_error(tmp_path: Path):
    audio = pa.array([{"bytes": None, "path": "a.wav"}, None], STRUCT)
    pq.write_table(pa.table({"audio": audio}), tmp_path / "a.parquet")
    for row in (0, 1):
        with pytest.raises(AudioDecodeError, match=rf"#row={row}.*holds no audio"):
            read_row(f"{tmp_path}/a.parquet", row)


def test_a_table_without_audio_is_an_error(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a"], "thumbnail": [b"png"]}), tmp_path / "a.parquet")
    with pytest.raises(AudioDecodeError, match="no column holds audio bytes among text, thumbnail"):
        read_row(f"{tmp_path}/a.parquet", 0)


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_what_is_no_parquet_file_is_an_error(tmp_path: Path, content: bytes):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(AudioDecodeError):
        read_row(f"{tmp_path}/a.parquet", 0)
    with pytest.raises(AudioDecodeError, match="Directory"):
        read_row(str(tmp_path), 0)


def test_the_audio_column_is_the_one_in_the_metadata_then_a_struct_then_a_binary_with_a_known_name():
    binary, text = pa.binary(), pa.string()
    assert find_audio_column(pa.schema({"audio": binary, "recorded": STRUCT, "text": text})) == "recorded"
    assert find_audio_column(pa.schema({"thumbnail": binary, "flac": pa.large_binary()})) == "flac"
    assert find_audio_column(pa.schema({"audio": text})) is None
    features = {"info": {"features": {"b": {"_type": "Audio"}, "text": {"dtype": "string"}}}}
    schema = pa.schema({"a": STRUCT, "b": STRUCT}, metadata={"huggingface": json.dumps(features)})
    assert find_audio_column(schema) == "b"
    assert find_audio_column(schema.with_metadata({"huggingface": "no json"})) == "a"


def test_a_column_of_images_does_not_take_the_place_of_audio_that_cannot_be_read(tmp_path: Path):
    features = {"info": {"features": {"image": {"_type": "Image"}, "voice": {"_type": "Audio"}}}}
    table = pa.table({"image": pa.array([{"bytes": b"png", "path": "a.png"}], STRUCT), "voice": ["a.wav"]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    assert find_audio_column(table.schema) is None
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(AudioDecodeError, match=r"voice has the type string, store each recording's file as binary"):
        read_row(f"{tmp_path}/a.parquet", 0)
