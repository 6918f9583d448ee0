import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pydantic import ValidationError

from sottovoce.audio.augmentation.augment import AugmentConfig, Augmenter
from sottovoce.config import load_config
from sottovoce.data.batch_reader import BATCH_SCHEMA, BatchReader, build_table, in_order, to_batch
from sottovoce.data.dataset import DatasetConfig, SpeechStream, build_stream
from sottovoce.data.mixing import Speech
from sottovoce.errors import ConfigError, RowsLostError
from sottovoce.schema import Example, PcmBatch, Utterance

MANIFEST = Path("manifest.jsonl")
SLOWER = AugmentConfig(speed_probability=1.0, min_speed=0.8, max_speed=0.8)


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Six tones of 8 kHz, 0.1 to 0.6 s, each as loud as its number."""
    made = []
    for i in range(6):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, np.full(800 * (i + 1), 0.1 * (i + 1)), 8_000)
        made.append(
            Utterance(id=f"u{i}", audio=str(path), duration_s=round(0.1 * (i + 1), 4), text=f"tone {i}", speaker="s")
        )
    return made


def stream_of(utterances: list[Utterance], **settings: object) -> SpeechStream:
    config = DatasetConfig.model_validate({"manifest": MANIFEST, "batch_size": 2} | settings)
    return build_stream(Speech(manifests=(tuple(utterances),), rejects=()), config)


def reader_of(stream: SpeechStream, *, num_microbatches: int = 1, augment: AugmentConfig | None = None) -> BatchReader:
    return BatchReader(
        build_table(stream.examples),
        stream.plan(num_microbatches=num_microbatches, seed=0),
        Augmenter(augment) if augment else None,
        max_example_s=stream.longest_s,
    )


def read_batch(stream: SpeechStream, step: int, *, microbatch: int = 0, num_microbatches: int = 1) -> PcmBatch:
    """The row that a task makes and a worker reads, without Ray between them."""
    reader = reader_of(stream, num_microbatches=num_microbatches, augment=stream.augment)
    examples = [stream.examples[place] for place in reader.plan.batch(step, microbatch=microbatch)]
    return to_batch(reader.read(step, microbatch=microbatch), examples, epoch=reader.plan.epoch_of(step))


def test_a_row_holds_the_recordings_of_one_microbatch_as_concatenated_pcm(utterances: list[Utterance]) -> None:
    reader = reader_of(stream_of(utterances, batch_size=3), num_microbatches=2)
    row = reader.read(0, microbatch=1)
    assert row.schema == BATCH_SCHEMA
    (values,) = row.to_pylist()
    assert values["num_samples"] == [1_600 * (place + 1) for place in reader.plan.batch(0, microbatch=1)]
    assert len(values["pcm"]) == 2 * sum(values["num_samples"])
    assert values["rejects"] == []


def test_a_row_becomes_a_batch_with_examples_and_epoch(utterances: list[Utterance]) -> None:
    batch = read_batch(stream_of(utterances), 4)
    assert (batch.step, batch.epoch, batch.rejects) == (4, 1, ())
    recordings = [pcm for (pcm,) in batch.recordings]
    assert [len(pcm) for pcm in recordings] == [round(one.duration_s * 16_000) for one in batch.examples]
    loudness = [float(np.median(pcm)) / 32_767 for pcm in recordings]
    assert loudness == pytest.approx([one.duration_s for one in batch.examples], abs=0.01)


def test_a_packed_example_has_a_recording_for_each_of_its_utterances(utterances: list[Utterance]) -> None:
    stream = stream_of(utterances, pack_s=0.9)
    batch = read_batch(stream, 0)
    assert any(len(example.utterances) > 1 for example in stream.examples)
    for example, recordings in zip(batch.examples, batch.recordings, strict=True):
        assert [len(pcm) for pcm in recordings] == [round(one.duration_s * 16_000) for one in example.utterances]


def test_an_epoch_holds_every_utterance_once_with_any_number_of_microbatches(utterances: list[Utterance]) -> None:
    stream = stream_of(utterances, pack_s=0.7)
    for num_microbatches in (1, 2, 3):
        steps = range(stream.steps_per_epoch(num_microbatches))
        batches = [
            read_batch(stream, step, microbatch=microbatch, num_microbatches=num_microbatches)
            for step in steps
            for microbatch in range(num_microbatches)
        ]
        ids = [one.id for batch in batches for example in batch.examples for one in example.utterances]
        assert sorted(ids) == [f"u{i}" for i in range(6)]


@pytest.mark.parametrize(("content", "reason"), [(None, "missing_file"), (b"", "empty"), (b"no audio", "unreadable")])
def test_a_recording_that_cannot_be_read_becomes_a_reject(
    tmp_path: Path, utterances: list[Utterance], content: bytes | None, reason: str
) -> None:
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    broken = Utterance(id="broken", audio=str(path), duration_s=0.15, text="x", speaker="s")
    batch = read_batch(stream_of([utterances[0], broken, utterances[1]], pack_s=0.5), 0)
    (recordings,) = batch.recordings
    assert [len(pcm) for pcm in recordings] == [1_600, 0, 3_200]
    assert [(reject.id, reject.reason) for reject in batch.rejects] == [("broken", reason)]


def test_a_batch_without_readable_recordings_is_still_yielded(tmp_path: Path) -> None:
    lost = [Utterance(id=f"lost{i}", audio=str(tmp_path / "x.wav"), duration_s=1.0, text="x") for i in range(2)]
    batch = read_batch(stream_of(lost), 0)
    assert [len(pcm) for (pcm,) in batch.recordings] == [0, 0]
    assert sorted(reject.id for reject in batch.rejects) == ["lost0", "lost1"]


def test_only_the_utterances_part_of_a_long_recording_is_read(utterances: list[Utterance]) -> None:
    part = utterances[5].model_copy(update={"start_s": 0.2, "duration_s": 0.25})
    ((pcm,),) = read_batch(stream_of([part]), 0).recordings
    assert len(pcm) == 4_000


def test_speech_is_augmented_alike_within_an_epoch_and_differently_in_the_next(utterances: list[Utterance]) -> None:
    stream = stream_of(utterances, batch_size=8, augment=AugmentConfig(noise_probability=1.0))
    first, again, second = (
        {example.id: pcm.tobytes() for example, (pcm,) in zip(batch.examples, batch.recordings, strict=True)}
        for batch in (read_batch(stream, 0), read_batch(stream, 0), read_batch(stream, 1))
    )
    assert first == again
    assert all(first[one] != second[one] for one in first)


def test_slower_speech_is_no_longer_than_the_longest_example(utterances: list[Utterance]) -> None:
    stream = stream_of(utterances, batch_size=8, augment=SLOWER)
    batch = read_batch(stream, 0)
    samples = {example.id: len(pcm) for example, (pcm,) in zip(batch.examples, batch.recordings, strict=True)}
    assert samples["u0"] == pytest.approx(1_600 / 0.8, abs=2)
    assert samples["u4"] == pytest.approx(9_600, abs=2)  # 0.5 s would become 0.625 s
    assert samples["u5"] == 9_600


def test_slower_packs_are_no_longer_than_the_longest_example(utterances: list[Utterance]) -> None:
    stream = stream_of(utterances, batch_size=8, pack_s=0.65, augment=SLOWER)
    batch = read_batch(stream, 0)
    assert max(map(len, batch.recordings)) > 1
    assert all(sum(map(len, parts)) <= stream.longest_s * 16_000 for parts in batch.recordings)


def test_batches_are_planned_for_what_augmentation_makes_of_them(utterances: list[Utterance]) -> None:
    limits = {"batch_size": 64, "batch_s": 1.2}
    for augment in (AugmentConfig(), SLOWER):
        stream = stream_of(utterances, augment=augment, **limits)
        for step in range(stream.steps_per_epoch(1)):
            recordings = read_batch(stream, step).recordings
            assert max(len(pcm) for (pcm,) in recordings) * len(recordings) <= 1.2 * 16_000 + 64


def test_weights_mix_manifests(utterances: list[Utterance]) -> None:
    config = DatasetConfig(manifest=(MANIFEST, MANIFEST), weights=(1.0, 0.5), batch_size=2)
    stream = build_stream(Speech(manifests=(tuple(utterances[:2]), tuple(utterances[2:])), rejects=()), config)
    assert stream.steps_per_epoch(1) == 2
    plan = stream.plan(num_microbatches=1, seed=0)
    read = [
        sorted(int(place) for step in (0, 1) for place in plan.batch(2 * epoch + step, microbatch=0))
        for epoch in (0, 1)
    ]
    assert [one[:2] for one in read] == [[0, 1], [0, 1]]
    assert sorted(read[0][2:] + read[1][2:]) == [2, 3, 4, 5]


def test_a_stream_keeps_only_the_training_split(utterances: list[Utterance]) -> None:
    stream = stream_of([utterances[0], utterances[1].model_copy(update={"split": "validation"})])
    assert list(stream.examples) == [Example(utterances=(utterances[0],))]
    assert list(stream.utterances) == [utterances[0]]


def test_an_empty_training_split_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="train split"):
        stream_of([])


def test_the_data_that_tasks_share_is_read_without_copying() -> None:
    examples = [
        Example(utterances=(Utterance(id=f"{i}", audio="a.wav", duration_s=1.0, text="x"),)) for i in range(999)
    ]
    stream = SpeechStream(
        examples=tuple(examples), manifest_sizes=(999,), weights=(1.0,), batch_size=4, batch_s=99.0,
        augment=AugmentConfig(), steps_per_task=1, tasks_per_worker=1, cpus_per_task=1.0, prefetch_batches=0,
    )  # fmt: skip
    buffers: list[pickle.PickleBuffer] = []
    inline = pickle.dumps(reader_of(stream), protocol=5, buffer_callback=buffers.append)
    assert len(inline) < 20_000
    assert sum(buffer.raw().nbytes for buffer in buffers) > 999 * 5 * 8
    assert isinstance(pickle.loads(inline, buffers=buffers).table.audio, pa.LargeStringArray)


@pytest.mark.parametrize(
    ("came", "complaint"),
    [
        ([(4, 0), (4, 2), (4, 2)], r"\(4, 2\) came instead of \(5, 0\)"),
        ([(4, 0), (5, 0)], r"\(5, 0\) came instead of \(4, 2\)"),
        ([(4, 0), (4, 2), (5, 0)], r"3 came out .*\(5, 2\) never came"),
        ([(4, 0), (4, 2), (5, 0), (5, 2), (6, 0)], r"\(6, 0\) came instead of None"),
        ([], r"\(4, 0\) never came"),
    ],
)
def test_a_batch_that_comes_twice_or_not_at_all_stops_the_stream(came: list[tuple[int, int]], complaint: str) -> None:
    rows = [pa.table({"step": [step], "microbatch": [microbatch]}) for step, microbatch in came]
    with pytest.raises(RowsLostError, match=complaint):
        list(in_order(rows, microbatches=(0, 2), first_step=4, last_step=6))


def test_a_fingerprint_follows_the_utterances_and_their_batches(utterances: list[Utterance]) -> None:
    def fingerprint(chosen: list[Utterance], *, num_microbatches: int = 1, seed: int = 0, **settings: object) -> str:
        return stream_of(chosen, **settings).fingerprint(num_microbatches=num_microbatches, seed=seed)

    same = [fingerprint(utterances), fingerprint(utterances, steps_per_task=3)]
    renamed = [utterances[0].model_copy(update={"id": "other"}), *utterances[1:]]
    others = [
        fingerprint(renamed),
        fingerprint(utterances[:-1]),
        fingerprint(utterances, num_microbatches=2),
        fingerprint(utterances, seed=1),
        fingerprint(utterances, batch_size=3),
        fingerprint(utterances, pack_s=0.9),
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 7


def test_a_single_manifest_needs_no_list(tmp_path: Path) -> None:
    assert DatasetConfig.model_validate({"manifest": "one.jsonl"}).manifest == (Path("one.jsonl"),)
    assert DatasetConfig.model_validate({"manifest": ["a", "b"]}).manifest == (Path("a"), Path("b"))
    on_line = load_config(DatasetConfig, ["--manifest", "a", "b", "--weights", "1", "0.25"])
    assert (on_line.manifest, on_line.weights) == ((Path("a"), Path("b")), (1.0, 0.25))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("manifest: one.jsonl\nbatch_s: 120\n", encoding="utf-8")
    assert load_config(DatasetConfig, ["--config", str(recipe)]).manifest == (Path("one.jsonl"),)
    over = load_config(DatasetConfig, ["--config", str(recipe), "--manifest", "a", "b"])
    assert (over.manifest, over.batch_s) == ((Path("a"), Path("b")), 120.0)


@pytest.mark.parametrize("settings", [{"weights": (1.0,)}, {"weights": (1.0, 0.0)}, {"manifest": ()}, {"pack_s": 31.0}])
def test_settings_without_meaning_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DatasetConfig.model_validate({"manifest": ("a", "b")} | settings)
