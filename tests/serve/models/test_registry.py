"""Records of promoted models: written in one step, by one writer at a time, read as they were or as they are."""

import multiprocessing
import shutil

import pytest

from serve.models.registry import ModelRecord, Release, change_record, read_record, read_records, release_folder
from sottovoce.errors import CheckpointError


def release(version: int, replaces: int | None = None) -> Release:
    return Release(
        version=version,
        promoted=1_000 + version,
        digest=f"d{version}",
        variant="torch",
        replaces=replaces,
        checkpoint="x",
        export=None,
    )


def add_release(record: ModelRecord | None) -> ModelRecord:
    before = () if record is None else record.releases
    new = release(len(before) + 1, record.current if record else None)
    return ModelRecord(name="main", current=new.version, releases=(*before, new))


def add_many(folder, count):
    for _ in range(count):
        change_record(folder, "main", add_release)


def test_a_record_reads_back_with_its_history(tmp_path):
    assert read_record(tmp_path / "none", "main") is None
    assert read_records(tmp_path / "none") == {}
    add_many(tmp_path / "models", 2)
    record = read_record(tmp_path / "models", "main")
    assert (record.current, [one.version for one in record.releases]) == (2, [1, 2])
    assert record.release(2).replaces == 1
    assert record.release(9) is None
    assert read_records(tmp_path / "models") == {"main": record}


def test_a_name_with_a_slash_has_one_file_and_no_folder(tmp_path):
    change_record(tmp_path, "org/name", lambda _: ModelRecord(name="org/name", current=1, releases=(release(1),)))
    assert list(read_records(tmp_path)) == ["org/name"]
    assert release_folder(tmp_path, "org/name", 3).parent.parent == tmp_path / ".releases"


# Python 3.12 and later warn of a fork where there are threads, torch's: a lock they hold stays locked. The writers take
# none of theirs, and a new process would import for seconds what they have.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_no_writer_loses_what_another_wrote(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add_many, args=(tmp_path, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [one.version for one in read_record(tmp_path, "main").releases] == list(range(1, 101))


def test_a_change_that_fails_leaves_the_record_and_no_draft(tmp_path):
    add_many(tmp_path, 1)

    def fail(_: ModelRecord | None) -> ModelRecord:
        raise CheckpointError("x", "on purpose")

    with pytest.raises(CheckpointError):
        change_record(tmp_path, "main", fail)
    assert read_record(tmp_path, "main").current == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".main.lock", "main.json"]


@pytest.mark.parametrize("content", [b'{"name": "main"}', b'{"name": "\xe9"}', b"\xff\xfe", b""])
def test_a_file_that_is_no_record_is_named_and_hides_no_other(tmp_path, content):
    add_many(tmp_path, 1)
    (tmp_path / "org%2Fnotes.json").write_bytes(content)
    (tmp_path / "folder.json").mkdir()
    records = read_records(tmp_path)
    assert list(records) == ["main", "org/notes"]
    assert records["main"].current == 1
    with pytest.raises(CheckpointError, match=r"org%2Fnotes\.json.*not the record of a promoted model"):
        raise records["org/notes"]
    with pytest.raises(CheckpointError):
        read_record(tmp_path, "org/notes")


def test_a_copy_of_a_record_does_not_stand_for_the_name_in_it(tmp_path):
    add_many(tmp_path, 1)
    shutil.copy(tmp_path / "main.json", tmp_path / "main_before.json")
    add_many(tmp_path, 1)
    records = read_records(tmp_path)
    assert records["main"].current == 2
    assert "copy of the record of 'main'" in str(records["main_before"])
