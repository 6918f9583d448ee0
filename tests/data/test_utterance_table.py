"""A table of utterances is the same sequence as the objects, and travels without being copied."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.data.dataset import DatasetConfig, build_stream, decode_here
from sottovoce.data.manifest import _read_columns, read_manifest, read_table, write_manifest
from sottovoce.data.mixing import read_speech
from sottovoce.data.utterance_table import SCHEMA, ExampleTable, UtteranceTable
from sottovoce.errors import ManifestError
from sottovoce.schema import Example, Reject, Utterance
from sottovoce.train.task import WorkerTask

NUM_UTTERANCES = 2_000


def utterance(number: int, **fields: object) -> Utterance:
    values = {
        "id": f"u{number}", "audio": f"/a/{number}.wav", "start_s": number / 8, "duration_s": 1.0 + number % 7,
        "text": ("yes", "", " \x1c", "好")[number % 4], "language": ("en", "de")[number % 2],
        "speaker": (None, "a", "b")[number % 3], "split": ("train", "validation")[number % 5 == 0],
    }  # fmt: skip
    return Utterance.model_validate(values | fields)


@pytest.fixture
def utterances() -> list[Utterance]:
    return [utterance(number) for number in range(30)]


def test_a_table_is_the_sequence_it_was_made_of(utterances: list[Utterance]) -> None:
    table = UtteranceTable.of(utterances)
    assert list(table) == utterances
    assert [table[0], table[-1], *table[3:5]] == [utterances[0], utterances[-1], *utterances[3:5]]
    assert list(table.of_split("validation")) == [one for one in utterances if one.split == "validation"]
    assert not table.of_split("test")
    assert UtteranceTable.of(table) is table
    assert list(UtteranceTable.of([])) == []
    with pytest.raises(IndexError):
        table[30]


def test_what_is_asked_of_all_rows_is_what_each_would_answer(utterances: list[Utterance]) -> None:
    table = UtteranceTable.of(utterances)[5:]
    rest = utterances[5:]
    assert table.has_speech().tolist() == [bool(one.text.strip()) for one in rest]
    assert table.numbers("duration_s").tolist() == [one.duration_s for one in rest]
    assert table.column("id").to_pylist() == [one.id for one in rest]
    assert table.count_values("speaker") == 2
    codes = dict(
        zip(table.codes("language", "speaker").tolist(), [(one.language, one.speaker) for one in rest], strict=True)
    )
    assert len(set(codes.values())) == len(codes) == 6
    kinds = {(one.language, one.task, bool(one.text.strip())) for one in table.kinds()}
    assert kinds == {(one.language, one.task, bool(one.text.strip())) for one in rest}
    assert len(table.kinds()) == len(kinds)


def test_joined_tables_keep_rows_and_previous_texts(utterances: list[Utterance]) -> None:
    first = ExampleTable.of([Example(utterances=tuple(utterances[:3]), previous_text="before")])
    second = ExampleTable.of([Example(utterances=(one,)) for one in utterances[3:]])
    joined = ExampleTable.join([first, second])
    assert list(joined) == [*first, *second]
    assert joined[0].previous_text == "before"
    assert joined[-1] == Example(utterances=(utterances[-1],))
    assert joined.durations_s.tolist() == [example.duration_s for example in joined]
    assert joined[1:3] == [joined[1], joined[2]]


def test_one_join_of_the_same_columns_copies_nothing(utterances: list[Utterance]) -> None:
    table = UtteranceTable.of(utterances)
    assert UtteranceTable.join([table[:4], table[9:]]).batch is table.batch


def write_large(folder: Path) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(utterance(i, text=f"text {i}").model_dump_json() + "\n" for i in range(NUM_UTTERANCES)))
    return path


def test_a_workers_task_holds_no_utterance_inline(tmp_path: Path) -> None:
    """Ray keeps the buffers in its object store, where every worker reads them in place."""
    path = write_large(tmp_path)
    speech = read_speech((path,))
    stream, validation = build_stream(speech, DatasetConfig(manifest=(path,))), speech.split("validation")
    task = WorkerTask(
        training={}, device="cpu", precision="fp32", stream=stream, validation=validation, output=tmp_path, board=""
    )
    buffers: list[pickle.PickleBuffer] = []
    inline = pickle.dumps(task, protocol=5, buffer_callback=buffers.append)
    assert len(inline) < 20_000
    assert sum(buffer.raw().nbytes for buffer in buffers) < 300 * NUM_UTTERANCES
    there: WorkerTask = pickle.loads(inline, buffers=buffers)
    assert list(there.validation) == list(validation)
    assert there.stream.fingerprint(num_microbatches=2, seed=1) == stream.fingerprint(num_microbatches=2, seed=1)
    theirs = there.stream.utterances.batch.column("text").buffers()[2]  # type: ignore[attr-defined]
    assert theirs.address == stream.utterances.batch.column("text").buffers()[2].address, "it was copied"


def test_both_ways_to_read_a_manifest_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_large(tmp_path)
    fast = read_manifest(path)
    monkeypatch.setattr("sottovoce.data.manifest._read_columns", lambda _path: None)
    assert read_manifest(path) == fast
    assert [one.text for one in fast[:2]] == ["text 0", "text 1"]


@pytest.fixture
def described() -> list[Utterance]:
    """Most rows have no further columns, and the others have not all the same."""
    columns: list[dict[str, str]] = [{}, {"room": 'a "hall", {big}', "mic": "ü"}, {"age": "40", "2020": "2020-01-01"}]
    return [utterance(number, columns=columns[number % 7] if number % 7 < 3 else {}) for number in range(30)]


def test_further_columns_take_memory_only_where_there_are_any(
    utterances: list[Utterance], described: list[Utterance]
) -> None:
    assert UtteranceTable.of(utterances).batch.schema == SCHEMA
    table = UtteranceTable.of(described)
    assert list(table) == described
    assert table[8] == described[8]
    assert table.batch.schema.names[len(SCHEMA) :] == ["columns.room", "columns.mic", "columns.age", "columns.2020"]
    without = UtteranceTable.of([one.model_copy(update={"id": f"x{one.id}"}) for one in utterances])
    others = UtteranceTable.of([utterance(50, columns={"age": "41", "mic": "ü"})])
    joined = UtteranceTable.join([without[:3], table, without[9:], others])
    assert list(joined) == [*without[:3], *described, *without[9:], *others]
    (example,) = ExampleTable.of([Example(utterances=tuple(described[:2]), previous_text="before")])
    assert example.utterances == tuple(described[:2])


def test_both_ways_to_read_further_columns_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: list[Utterance]
) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest([*described, utterance(99, text='{"columns": {"no": "no"}}')], path)
    assert _read_columns(path) is not None, "it was read line by line"
    fast = read_manifest(path)
    assert fast[:-1] == described
    monkeypatch.setattr("sottovoce.data.manifest._read_columns", lambda _path: None)
    assert read_manifest(path) == fast


@pytest.mark.parametrize(
    ("columns", "field"),
    [("null", "columns"), ('"x"', "columns"), ('{"a": null}', r"columns\.a"), ('{"a": 1}', r"columns\.a"),
     ('{"a": {"b": "x"}}', r"columns\.a")],
)  # fmt: skip
def test_further_columns_that_are_not_text_are_named(tmp_path: Path, columns: str, field: str) -> None:
    path = tmp_path / "manifest.jsonl"
    line = '{{"id": "{}", "audio": "a.wav", "text": "a", "duration_s": 1, "columns": {}}}\n'
    path.write_text(line.format("a", '{"a": "x"}') + line.format("b", columns) + line.format("c", "{}"))
    with pytest.raises(ManifestError, match=f"line 2, field {field}:"):
        read_table(path)


@pytest.mark.parametrize("left_out", ["", '"start_s": null, ', '"split": null, '])
def test_fields_may_be_left_out_and_only_three_may_be_null(tmp_path: Path, left_out: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(f'{{{left_out}"id": "a", "audio": "a.wav", "text": "a", "duration_s": 1, "speaker": null}}\n')
    if left_out:
        with pytest.raises(ManifestError, match=r"line 1, field (start_s|split)"):
            read_table(path)
    else:
        assert list(read_table(path)) == [
            Utterance(id="a", audio=str(tmp_path / "a.wav"), text="a", duration_s=1.0, speaker=None)
        ]


@pytest.mark.parametrize("line", ["null", "7", '{"id": "a"} null', "[]", '"a"'])
def test_a_line_that_is_no_object_is_named_and_crashes_nothing(tmp_path: Path, line: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "a", "audio": "a.wav", "text": "a", "duration_s": 1}\n' + line + "\n")
    with pytest.raises(ManifestError, match="line 2"):
        read_table(path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_manifest_has_no_utterances(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(content)
    assert len(read_table(tmp_path / "manifest.jsonl")) == 0


@pytest.mark.parametrize(
    "audio", ["../b/a.wav", "./a.wav", "a//b.wav", "/abs/../a.wav", "a/..", "s3://b//c", "a.b/c.wav"]
)
def test_paths_are_joined_as_the_system_joins_them(tmp_path: Path, audio: str) -> None:
    path = tmp_path / "run" / "manifest.jsonl"
    path.parent.mkdir()
    path.write_text(f'{{"id": "a", "audio": "{audio}", "text": "a", "duration_s": 1}}\n')
    expected = audio if "://" in audio else os.path.normpath(path.parent / audio)
    assert [one.audio for one in read_table(path)] == [expected]


def test_validation_is_decoded_as_it_is_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    good = utterance(1, audio=str(tmp_path / "a.wav"), start_s=0.0, duration_s=0.25)
    gone = utterance(2, audio=str(tmp_path / "gone.wav"))
    (first,), (second, third) = decode_here([[good], [gone, good]])
    assert isinstance(second, Reject)
    assert (second.id, second.reason) == ("u2", "missing_file")
    for read in (first, third):
        assert not isinstance(read, Reject)
        assert np.array_equal(read, samples), "rounded to 16 bits"
