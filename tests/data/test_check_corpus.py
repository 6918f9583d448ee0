import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import TypeAdapter

from sottovoce.data.check import Checked
from sottovoce.data.check_corpus import build_check, build_parquet_check, number_rows, require_same_rows
from sottovoce.data.corpora.parquet import ParquetFile
from sottovoce.data.prepare import PrepareConfig, build_rules
from sottovoce.errors import RowsLostError, StorageError
from sottovoce.schema import Utterance


def read_checked(item: dict[str, Any]) -> Checked:
    return TypeAdapter(Checked).validate_json(item["record"])


def test_a_mapped_row_carries_the_outcome_as_json(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(np.arange(16_000) * 0.2), 16_000)
    rules = build_rules(PrepareConfig(language="de"), name="corpus")
    item = {"index": 3, "record": json.dumps({"id": "a", "audio": str(tmp_path / "a.wav"), "text": " Said. "})}
    mapped = build_check(pickle.loads(pickle.dumps(rules)))(item)
    checked = read_checked(mapped)
    assert mapped["index"] == 3
    assert checked.outcome.model_dump(include={"text", "language", "corpus"}) == {
        "text": "Said.",
        "language": "de",
        "corpus": "corpus",
    }
    assert checked.digest is not None


def test_the_same_rows_in_another_order_are_accepted():
    assert require_same_rows("check", ["a", "b", "b"], ["b", "a", "b"]) is None


@pytest.mark.parametrize(
    ("ids_out", "message"),
    [
        (["a"], r"stage check: 2 rows went in and 1 came out \(lost 'b'; added none\)"),
        (["a", "b", "b"], "2 rows went in and 3 came out .lost none; added 'b'"),
        (["a", "c"], "lost 'b'; added 'c'"),
        ([], "lost 'a', 'b'"),
    ],
)
def test_a_lost_a_doubled_and_an_exchanged_row_are_named(ids_out: list[str], message: str):
    with pytest.raises(RowsLostError, match=message):
        require_same_rows("check", ["a", "b"], ids_out)


def test_of_many_lost_rows_three_are_named():
    with pytest.raises(RowsLostError, match=r"lost '0', '1', '2' and 7 more"):
        require_same_rows("check", [str(i) for i in range(10)], [])


def shard(name: str, num_rows: int) -> ParquetFile:
    return ParquetFile(
        name=name, reference=f"/x/{name}", num_rows=num_rows, split=None, audio_column="audio", columns=()
    )


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["b.parquet"], r"stage read: 3 rows went in and 0 came out .*at row 0 of a.parquet"),
        (["a.parquet", "b.parquet"], "at row 1 of a.parquet"),
        (["a.parquet", "a.parquet"], "3 rows went in and 2 came out .*at row 0 of b.parquet"),
        (["a.parquet", "a.parquet", "b.parquet", "b.parquet"], "after the last shard"),
    ],
)
def test_a_shard_that_gives_other_rows_than_its_footer_says_is_named(paths: list[str], message: str):
    shards = [shard("a.parquet", 2), shard("b.parquet", 1)]
    with pytest.raises(RowsLostError, match=message):
        list(number_rows(({"path": f"/x/{path}"} for path in paths), shards))


def test_rows_are_numbered_within_their_shard():
    shards = [shard("a.parquet", 2), shard("b.parquet", 1)]
    items = [{"path": f"/x/{name}.parquet"} for name in "aab"]
    places = [(place[0].name, place[1]) for _, place in number_rows(items, shards)]
    assert places == [("a.parquet", 0), ("a.parquet", 1), ("b.parquet", 0)]


def test_a_parquet_row_is_checked_with_the_bytes_it_brings(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(np.arange(16_000) * 0.2), 16_000)
    check = build_parquet_check(build_rules(PrepareConfig(), name="corpus"))
    values = {"path": "/x/a.parquet", "audio": (tmp_path / "a.wav").read_bytes(), "text": b"Said."}
    outcomes = [read_checked(check(values | change)).outcome for change in ({}, {"audio": b"x"}, {"text": b"\xe9"})]
    assert [type(outcome).__name__ for outcome in outcomes] == ["Utterance", "Reject", "Reject"]
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == [None, "unreadable", "wrong_encoding"]
    assert all(outcome.id == "" for outcome in outcomes), "the row names no id, so counting will"


def test_kept_columns_reach_the_utterance_from_a_row_and_from_parquet(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(np.arange(16_000) * 0.2), 16_000)
    rules = build_rules(PrepareConfig(), name="corpus")
    record = {"id": "a", "audio": str(tmp_path / "a.wav"), "text": "Said.", "columns": {"room": "hall"}}
    from_row = build_check(rules)({"index": 0, "record": json.dumps(record)})
    values = {"path": "/x/a.parquet", "audio": (tmp_path / "a.wav").read_bytes(), "text": b"Said.", "room": b"hall"}
    from_parquet = build_parquet_check(rules, keep=("room",))({**values, "mood": b"calm"})
    for outcome in (read_checked(from_row).outcome, read_checked(from_parquet).outcome):
        assert isinstance(outcome, Utterance)
        assert outcome.columns == {"room": "hall"}


def test_storage_that_does_not_answer_is_a_fault_of_its_own_and_no_reject(monkeypatch: pytest.MonkeyPatch):
    def fail(*_arguments: object, **_options: object) -> None:
        raise StorageError("s3://bucket/a.wav", "SlowDown")

    monkeypatch.setattr("sottovoce.data.check.read_audio_with_format", fail)
    item = {"index": 3, "record": json.dumps({"id": "a", "audio": "s3://bucket/a.wav", "text": "Said."})}
    mapped = build_check(build_rules(PrepareConfig(), name="corpus"))(item)
    assert mapped == {"index": 3, "record": "", "fault": '["s3://bucket/a.wav", "SlowDown"]'}
