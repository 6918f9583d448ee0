"""Validation and stored recordings on a real Ray: decoded by its tasks, in order, whatever else holds its CPUs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.util import placement_group, remove_placement_group
from tone_training import NUM_TRAIN, NUM_VALIDATION, read_record, tone_job

from jobs.train_whisper import main
from sottovoce.audio.reference import read_bytes
from sottovoce.data.dataset import DatasetConfig, build_stream, decode_here
from sottovoce.data.manifest import read_manifest, write_manifest
from sottovoce.data.mixing import read_speech
from sottovoce.data.recording_store import store_recordings
from sottovoce.errors import AudioDecodeError, TooManyRejectsError
from sottovoce.schema import Reject, Utterance
from sottovoce.train.record import REJECTS_FILE

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture
def with_one_lost(tones: Path) -> tuple[Path, str]:
    """A manifest whose first validation recording has vanished, and its id."""
    utterances = read_manifest(tones)
    lost = next(one for one in utterances if one.split == "validation")
    gone = lost.model_copy(update={"audio": str(tones.with_name("gone.wav"))})
    path = tones.with_name("one_lost.jsonl")
    write_manifest([gone if one.id == lost.id else one for one in utterances], path)
    return path, lost.id


def test_batches_come_in_order_and_as_they_are_while_every_cpu_is_reserved(
    local_ray: str, with_one_lost: tuple[Path, str]
) -> None:
    """Training's own tasks may hold their CPUs during an evaluation; so its tasks must need none."""
    path, lost_id = with_one_lost
    speech = read_speech((path,))
    stream = build_stream(speech, DatasetConfig(manifest=(path,)))
    everyone = list(speech.split("validation"))
    batches = [everyone[:1], everyone[1:3], everyone[3:], everyone[:2]]
    group = placement_group([{"CPU": ray.available_resources()["CPU"]}])
    ray.get(group.ready(), timeout=60)
    try:
        found = list(stream.recordings(batches))
    finally:
        remove_placement_group(group)
    assert [len(batch) for batch in found] == [len(batch) for batch in batches]
    for ours, theirs in zip(found, decode_here(batches), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            if isinstance(one, Reject) or isinstance(other, Reject):
                assert one == other
                assert isinstance(one, Reject)
                assert one.id == lost_id
            else:
                assert np.array_equal(one, other)


def test_an_evaluation_without_batches_starts_nothing(local_ray: str, tones: Path) -> None:
    stream = build_stream(read_speech((tones,)), DatasetConfig(manifest=(tones,)))
    assert list(stream.recordings([])) == []


def test_a_lost_validation_recording_is_named_and_too_many_end_the_run(
    local_ray: str, in_process: None, with_one_lost: tuple[Path, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path, lost_id = with_one_lost
    job = tone_job(path, tiny_checkpoint, tmp_path / "out", max_failures=3, num_workers=1)
    with pytest.raises(
        TooManyRejectsError, match=rf"1 of {NUM_TRAIN + NUM_VALIDATION} rows were rejected.*{REJECTS_FILE}"
    ):
        main(job)
    lines = (job.output / REJECTS_FILE).read_text(encoding="utf-8").splitlines()
    (reject,) = map(Reject.model_validate_json, lines)
    assert (reject.id, reject.reason) == (lost_id, "missing_file")


def test_a_run_goes_on_without_a_lost_recording_where_that_is_allowed(
    local_ray: str, in_process: None, with_one_lost: tuple[Path, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path, _ = with_one_lost
    job = tone_job(path, tiny_checkpoint, tmp_path / "out", max_reject_fraction=0.3, num_workers=1)
    main(job)
    record = read_record(job.output)
    assert record.is_finished
    assert [row.metrics["lost_utterances"] for row in record.rows] == [1.0] * len(record.rows)
    assert record.data.rejects == {"missing_file": 1}


def test_rows_of_parquet_are_stored_by_tasks_and_one_that_is_gone_fails_with_its_name(
    local_ray: str, tmp_path: Path
) -> None:
    recordings = [bytes([row]) * (1_000 + row) for row in range(30)]
    shards = [tmp_path / f"{name}.parquet" for name in "ab"]
    for shard in shards:
        table = pa.table({"audio": pa.array([{"bytes": data, "path": "x"} for data in recordings])})
        pq.write_table(table, shard, row_group_size=7)
    given = [
        Utterance(id=f"{shard.stem}{row}", audio=f"{shard}#row={row}", duration_s=1.0, text="x")
        for row in (29, 0, 7, 15)
        for shard in shards
    ]
    stored = store_recordings(given, tmp_path / "store")
    assert [one.id for one in stored] == [one.id for one in given]
    assert [read_bytes(one.audio) for one in stored] == [recordings[row] for row in (29, 0, 7, 15) for _ in shards]
    lost = given[0].model_copy(update={"audio": f"{shards[0]}#row=30"})
    with pytest.raises(AudioDecodeError, match="row 30 lies outside the table of 30 rows"):
        store_recordings([lost], tmp_path / "other")
