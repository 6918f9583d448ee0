from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.data.batch_plan import build_plan
from sottovoce.data.dataset import BatchReader, DatasetConfig, SpeechStream, build_stream, read_recording, read_split
from sottovoce.data.manifest import write_manifest
from sottovoce.errors import ConfigError
from sottovoce.schema import Utterance


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Six tones of 8 kHz, 0.1 to 0.6 s, each as loud as its number."""
    made = []
    for i in range(6):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, np.full(800 * (i + 1), 0.1 * (i + 1)), 8_000)
        made.append(Utterance(id=f"u{i}", audio=str(path), duration_s=0.1 * (i + 1), text=f"tone {i}"))
    return made


def stream_of(utterances: list[Utterance], *, batch_size: int = 2) -> SpeechStream:
    config = DatasetConfig(manifest=Path("manifest.jsonl"), batch_size=batch_size)
    return build_stream(utterances, config)


def test_a_row_holds_one_ranks_recordings_as_pcm_one_after_the_other(utterances: list[Utterance]) -> None:
    plan = build_plan([one.duration_s for one in utterances], batch_size=3, num_ranks=2, seed=0)
    row = BatchReader(utterances, plan, rank=1).read({"step": 0})
    assert row["places"] == plan.batch(0, rank=1).tolist()
    assert row["num_samples"] == [1_600 * (place + 1) for place in row["places"]]
    assert len(row["pcm"]) == 2 * sum(row["num_samples"])
    assert row["rejects"] == ["", "", ""]


def test_a_row_becomes_a_batch_with_utterances_and_epoch(utterances: list[Utterance]) -> None:
    stream = stream_of(utterances)
    plan = build_plan([one.duration_s for one in utterances], batch_size=2, num_ranks=1, seed=0)
    row = BatchReader(utterances, plan, rank=0).read({"step": 4})
    batch = stream._to_batch(row, epoch=plan.epoch_of(4))  # type: ignore[arg-type]
    assert (batch.step, batch.epoch, batch.rejects) == (4, 1, ())
    recordings = [pcm for (pcm,) in batch.recordings]
    assert [len(pcm) for pcm in recordings] == [round(one.duration_s * 16_000) for one in batch.examples]
    loudness = [float(np.median(pcm)) / 32_767 for pcm in recordings]
    assert loudness == pytest.approx([one.duration_s for one in batch.examples], abs=0.01)


@pytest.mark.parametrize(("content", "reason"), [(None, "missing_file"), (b"", "empty"), (b"no audio", "unreadable")])
def test_a_recording_that_cannot_be_read_becomes_a_reject(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    pcm, reject = read_recording(Utterance(id="broken", audio=str(path), duration_s=1.0, text="x"))
    assert len(pcm) == 0
    assert reject is not None
    assert (reject.id, reject.reason) == ("broken", reason)


def test_only_the_utterances_part_of_a_long_recording_is_read(utterances: list[Utterance]) -> None:
    part = utterances[5].model_copy(update={"start_s": 0.2, "duration_s": 0.25})
    pcm, reject = read_recording(part)
    assert reject is None
    assert len(pcm) == 4_000


def test_a_split_is_read_from_the_manifest(tmp_path: Path, utterances: list[Utterance]) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest([utterances[0], utterances[1].model_copy(update={"split": "validation"})], path)
    assert [one.id for one in read_split(path, "validation")] == ["u1"]
    assert read_split(path, "test") == []


def test_an_empty_training_split_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="train split"):
        stream_of([])


def test_steps_per_epoch_agree_with_the_plan(utterances: list[Utterance]) -> None:
    for num_ranks in (1, 2, 3):
        plan = build_plan([one.duration_s for one in utterances], batch_size=2, num_ranks=num_ranks, seed=0)
        assert stream_of(utterances).steps_per_epoch(num_ranks) == plan.steps_per_epoch
