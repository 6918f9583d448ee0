import io
import json
import re
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from sottovoce.audio.decode import decode_audio, read_audio
from sottovoce.audio.parquet_rows import read_row
from sottovoce.data.corpora.parquet import (
    filesystem_for,
    flatten_rows,
    list_rows,
    parquet_files,
    parse_parquet_row,
    stream_parquet,
)
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import ManifestError

Place = Callable[[dict[str, bytes]], str]
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _shard(
    recordings: list[bytes | None],
    *,
    column: str = "audio",
    kind: pa.DataType = AUDIO,
    features: dict[str, object] | None = None,
    **columns: list[object] | pa.Array,
) -> bytes:
    """Write what ``Dataset.push_to_hub`` writes: a struct of bytes and path, and the features in the schema."""
    structs = [None if data is None else {"bytes": data, "path": f"{i}.flac"} for i, data in enumerate(recordings)]
    table = pa.table({column: pa.array(structs, kind), **columns})
    features = {column: {"sampling_rate": 16_000, "_type": "Audio"}, **(features or {})}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    holds_views = pa.types.is_binary_view(kind.field("bytes").type)  # pyarrow cannot write them in several groups
    pq.write_table(table, buffer, row_group_size=None if holds_views else 2)
    return buffer.getvalue()


def _read(folder: Path) -> list[tuple[CorpusRow, bytes]]:
    """Read the only shard of a folder as Ray Data does, but in this process."""
    (file,) = parquet_files(folder)
    table = pq.read_table(file.reference, columns=[file.audio_column, *file.columns], partitioning=None)
    flat = flatten_rows(table, audio_column=file.audio_column, class_names=file.class_names)
    return [parse_parquet_row(values) for values in flat.to_pylist()]


def test_footers_tell_shards_rows_splits_and_columns(place: Place):
    more = {"sentence": ["a", "b", "c"], "speaker_id": [1, 2, 3], "id": [None] * 3, "up_votes": [1, 2, 3]}
    location = place(
        {
            "data/train-00000-of-00002.parquet": _shard([b"1", b"2", b"3"], **more),
            "data/train-00001-of-00002.parquet": _shard([b"1", b"2", b"3"], **more),
            "data/validation-00000-of-00001.parquet": _shard([b"1", b"2", b"3"], **more),
            "README.md": b"# A card",
        }
    )
    files = parquet_files(location)
    assert [(file.num_rows, file.split) for file in files] == [(3, "train"), (3, "train"), (3, "validation")]
    assert files[0].reference == f"{location}/data/train-00000-of-00002.parquet"
    assert (files[0].audio_column, files[0].columns) == ("audio", ("sentence", "speaker_id"))
    assert files[0].row_reference(2) == f"{location}/data/train-00000-of-00002.parquet#row=2"
    assert files[0].row_id(2) == "data/train-00000-of-00002.parquet/0000002"
    assert [number for _, number in list_rows(files)] == [0, 1, 2] * 3


def test_a_row_reference_is_what_the_decoder_reads(place: Place, encode: Callable[..., bytes]):
    shard = _shard([encode(duration_s=0.25), encode(duration_s=0.5), encode("WAV", duration_s=1.0)], text=["x"] * 3)
    (file,) = parquet_files(place({"train.parquet": shard}))
    assert [len(read_audio(file.row_reference(number))) for number in range(3)] == [4_000, 8_000, 16_000]


def test_a_row_gives_its_fields_and_its_recording(encode: Callable[..., bytes]):
    flac = encode()
    row, audio = parse_parquet_row(
        {"audio": flac, "path": "x.parquet", "id": "u1", "text": b"Hello.", "speaker_id": 7, "start_s": 0.5}
    )
    assert (row.id, row.audio, row.text, row.speaker, row.start_s) == ("u1", "", "Hello.", "7", 0.5)
    assert audio == flac
    assert len(decode_audio(audio, source="x")) == 8_000


def test_rows_without_id_audio_or_utf8_are_faults(encode: Callable[..., bytes]):
    assert parse_parquet_row({"audio": b"1", "text": b"x"})[0].id == ""
    for audio in (None, b""):
        row, nothing = parse_parquet_row({"audio": audio, "id": b"u1", "text": b"x"})
        assert (row.id, row.fault, row.fault_reason, nothing) == ("u1", "holds no audio", "invalid_row", b"")
    row, _ = parse_parquet_row({"audio": b"1", "id": b"u1", "text": b"caf\xe9"})
    assert (row.id, row.fault_reason) == ("u1", "wrong_encoding")
    assert str(row.fault).startswith("its text")
    assert parse_parquet_row({"audio": b"1", "text": b"x", "start_s": 1.0, "task": b"translate"})[0].id == ""


def test_blocks_are_flattened_without_decoding_text():
    wrong = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", None], pa.binary()).buffers())
    structs = pa.array([{"bytes": b"1", "path": "a.flac"}, None], AUDIO)
    table = pa.table({"speech": structs, "text": wrong, "speaker_id": [1, 2], "path": ["p", "p"]})
    rows = flatten_rows(table, audio_column="speech").to_pylist()
    assert rows[0] == {"audio": b"1", "text": b"caf\xe9", "speaker_id": 1, "path": "p"}
    assert rows[1]["audio"] is None
    plain = pa.table({"wav": pa.array([b"1"], pa.binary()), "text": ["x"]})
    assert flatten_rows(plain, audio_column="wav").to_pylist() == [{"audio": b"1", "text": b"x"}]


TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
    pa.dictionary(pa.int32(), pa.binary()),
]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_text_of_every_type_keeps_its_language_split_and_speaker(tmp_path: Path, kind: pa.DataType):
    values = {"text": ["Hallo, Grüße!", ""], "language": ["de", "de"], "speaker_id": ["s1", None], "split": ["dev", ""]}
    columns = {
        name: pa.array([None if value is None else value.encode() for value in column], pa.binary())
        if "binary" in str(kind)
        else pa.array(column, pa.string())
        for name, column in values.items()
    }
    columns = {
        name: column.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else column.cast(kind)
        for name, column in columns.items()
    }
    (tmp_path / "a.parquet").write_bytes(_shard([b"1", b"2"], **columns))
    (first, sound), (second, _) = _read(tmp_path)
    assert (first.text, first.language, first.speaker, first.split) == ("Hallo, Grüße!", "de", "s1", "validation")
    assert (second.text, second.language, second.speaker, second.split) == ("", "de", None, None)
    assert (sound, first.fault, second.fault) == (b"1", None, None)


def test_text_of_a_fixed_length_is_read(tmp_path: Path):
    shard = _shard([b"1", b"2"], text=["x", "y"], language=pa.array([b"de", None], pa.binary(2)))
    (tmp_path / "a.parquet").write_bytes(shard)
    assert [row.language for row, _ in _read(tmp_path)] == ["de", None]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)], ids=str)
@pytest.mark.parametrize("path", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_recordings_of_every_type_of_bytes_are_read(tmp_path: Path, kind: pa.DataType, path: pa.DataType):
    shard = _shard([b"123", None], kind=pa.struct([("bytes", kind), ("path", path)]), text=["x", "y"])
    (tmp_path / "a.parquet").write_bytes(shard)
    assert [audio for _, audio in _read(tmp_path)] == [b"123", b""]
    assert read_row(f"{tmp_path}/a.parquet", 0) == b"123"


def test_times_of_every_type_of_number_are_seconds(tmp_path: Path):
    columns = {
        "start_s": pa.array([1, 0], pa.uint8()),
        "duration_s": pa.array([Decimal("2.50"), None], pa.decimal128(5, 2)),
    }
    (tmp_path / "a.parquet").write_bytes(_shard([b"1", b"2"], text=["x", "y"], **columns))
    assert [(row.start_s, row.duration_s) for row, _ in _read(tmp_path)] == [(1.0, 2.5), (0.0, None)]
    columns = {"start_s": pa.array([0.5, 0], pa.float16()), "end_s": pa.array(["1.25", None])}
    (tmp_path / "a.parquet").write_bytes(_shard([b"1", b"2"], text=["x", "y"], **columns))
    assert [(row.start_s, row.duration_s) for row, _ in _read(tmp_path)] == [(0.5, 0.75), (0.0, None)]


def test_the_hubs_class_numbers_are_read_as_the_names_of_their_classes(tmp_path: Path):
    features = {"language": {"names": ["en", "de"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    shard = _shard([b"1"] * 5, text=["x"] * 5, language=[1, 0, -1, None, 2], features=features)
    (tmp_path / "a.parquet").write_bytes(shard)
    assert [row.language for row, _ in _read(tmp_path)] == ["de", "en", None, None, "2"]


def test_shards_that_number_their_classes_otherwise_are_named(tmp_path: Path):
    for name, languages in (("a", ["en", "de"]), ("b", ["de", "en"])):
        features = {"language": {"names": languages, "_type": "ClassLabel"}}
        shard = _shard([b"1"], text=["x"], language=[0], features=features)
        (tmp_path / f"{name}.parquet").write_bytes(shard)
    with pytest.raises(ManifestError, match=r"b\.parquet: numbers its classes otherwise than a\.parquet"):
        parquet_files(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "kind", "remedy"),
    [
        ("language", [0], "int64", "store it as text"),
        ("split", [["train"]], "list<element: string>", "store it as text"),
        ("sentence", [{"de": "Hallo"}], "struct<de: string>", "store it as text"),
        ("speaker_id", [7.0], "double", "store it as text or a whole number"),
        ("start_s", [True], "bool", "store it as a number of seconds"),
    ],
)
def test_a_known_column_of_a_type_that_cannot_be_read_is_refused_with_the_remedy(
    tmp_path: Path, column: str, values: list[object], kind: str, remedy: str
):
    (tmp_path / "a.parquet").write_bytes(_shard([b"1"], text=["x"], **{column: values}))
    message = f"a.parquet: column {column} has the type {kind}, which cannot be read as "
    with pytest.raises(ManifestError, match=f"{re.escape(message)}.*{remedy}, or rename or remove it"):
        parquet_files(tmp_path)


def test_columns_that_nobody_reads_may_have_any_type(tmp_path: Path):
    (tmp_path / "a.parquet").write_bytes(_shard([b"1"], text=["x"], speaker=[None], words=[[{"start": 1}]]))
    assert [(row.text, row.speaker) for row, _ in _read(tmp_path)] == [("x", None)]


def test_shards_that_cannot_be_read_are_named(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"holds no \.parquet"):
        parquet_files(tmp_path)
    (tmp_path / "a.parquet").write_bytes(_shard([b"1"], text=["x"]))
    (tmp_path / "b.parquet").write_bytes(_shard([b"1"], text=["x"])[:-10])
    with pytest.raises(ManifestError, match=r"b\.parquet: is no whole Parquet file"):
        parquet_files(tmp_path)
    (tmp_path / "b.parquet").write_bytes(_shard([b"1"], sentence=["x"]))
    with pytest.raises(ManifestError, match=r"b\.parquet: has the columns .*prepare them as two corpora"):
        parquet_files(tmp_path)


def test_shards_without_audio_or_text_are_named(tmp_path: Path):
    pq.write_table(pa.table({"text": ["x"], "audio": ["a.wav"]}), tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match="no column of audio bytes among text, audio"):
        parquet_files(tmp_path)
    pq.write_table(pa.table({"text": ["x"], "audio": [[1, 2]]}), tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match=r"audio has the type list<element: int64>, store .* as binary"):
        parquet_files(tmp_path)
    (tmp_path / "a.parquet").write_bytes(_shard([b"1"], words=["x"]))
    with pytest.raises(ManifestError, match="no text column"):
        parquet_files(tmp_path)


def test_a_hub_corpus_is_read_through_the_hubs_file_system():
    assert isinstance(filesystem_for("hf://datasets/user/name").handler.fs, HfFileSystem)


@pytest.mark.ray
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_rows_stream_in_the_order_of_shards_and_rows(tmp_path: Path, local_ray: str, prefix: str):
    names = [f"data/train-{i:05d}-of-00003.parquet" for i in range(3)] + ["data/test-00000-of-00001.parquet"]
    (tmp_path / "data").mkdir()
    for name in names:
        sounds = [f"{name} {i} ".encode() * 20 for i in range(70)]
        (tmp_path / name).write_bytes(_shard(sounds, text=[f"{i}" for i in range(70)], up_votes=[3] * 70))

    def slow_at_first(row: dict[str, object]) -> dict[str, object]:
        time.sleep(0.01 if "test" in str(row["path"]) else 0.0)  # the first shard finishes last
        return row

    (tmp_path / "data" / "train-none.parquet").write_bytes(_shard([], text=pa.array([], "string")))
    files = parquet_files(f"{prefix}{tmp_path}")
    dataset = stream_parquet(f"{prefix}{tmp_path}", files).map(slow_at_first)
    rows = list(dataset.iter_rows())
    places = list(list_rows(files))
    assert len(rows) == len(places) == 280
    assert set(rows[0]) == {"audio", "text", "path"}
    for row, (file, number) in zip(rows, places, strict=True):
        parsed, audio = parse_parquet_row(row)
        assert row["path"] == file.reference
        assert (audio, parsed.text) == (f"{file.name} {number} ".encode() * 20, str(number))


@pytest.mark.ray
def test_text_that_is_no_utf8_streams_like_any_other(tmp_path: Path, local_ray: str):
    wrong = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"fine"], pa.binary()).buffers())
    (tmp_path / "a.parquet").write_bytes(_shard([b"1", b"2"], text=wrong))
    rows = [parse_parquet_row(row)[0] for row in stream_parquet(tmp_path).iter_rows()]
    assert [row.fault_reason if row.fault else row.text for row in rows] == ["wrong_encoding", "fine"]


@pytest.mark.ray
def test_dictionaries_and_views_stream_like_any_other(tmp_path: Path, local_ray: str):
    columns = {"text": pa.array(["x", "y"], pa.string_view()), "language": pa.array(["de", "de"]).dictionary_encode()}
    views = pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])
    (tmp_path / "a.parquet").write_bytes(_shard([b"1", b"2"], kind=views, **columns))
    plain = {"text": pa.array(["z"]), "language": pa.array(["fr"])}
    (tmp_path / "b.parquet").write_bytes(
        _shard([b"3"], kind=pa.struct([("bytes", pa.binary()), ("path", pa.string())]), **plain)
    )
    rows = [parse_parquet_row(row) for row in stream_parquet(tmp_path).iter_rows()]
    read = [(audio, row.text, row.language) for row, audio in rows]
    assert read == [(b"1", "x", "de"), (b"2", "y", "de"), (b"3", "z", "fr")]
