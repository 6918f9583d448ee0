import logging
from collections import defaultdict

import pytest

from sottovoce.data.prepare import assign_splits
from sottovoce.schema import Split, Utterance


def corpus(num_speakers: int, num_each: int = 10) -> list[Utterance]:
    return [
        Utterance(id=f"{s}-{i}", audio="a.wav", duration_s=1.0, text="x", speaker=f"s{s}" if num_speakers > 1 else None)
        for s in range(num_speakers)
        for i in range(num_each)
    ]


def split(utterances: list[Utterance], declared: dict[str, Split] | None = None, seed: int = 0) -> list[Utterance]:
    return assign_splits(utterances, declared=declared or {}, validation_fraction=0.1, test_fraction=0.2, seed=seed)


def test_no_speaker_is_in_two_splits_and_sizes_are_near_the_fractions():
    splits_of: dict[str | None, set[str]] = defaultdict(set)
    rows = split(corpus(20))
    for row in rows:
        splits_of[row.speaker].add(row.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    counts = [sum(row.split == name for row in rows) for name in ("train", "validation", "test")]
    assert counts == [140, 20, 40]


def test_the_split_is_the_same_for_any_order_and_differs_by_seed():
    rows = corpus(20)
    of_id = {row.id: row.split for row in split(rows)}
    assert of_id == {row.id: row.split for row in split(rows[::-1])}
    assert of_id != {row.id: row.split for row in split(rows, seed=1)}


def test_too_few_speakers_split_by_utterance_with_a_warning(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        rows = split(corpus(2, 50))
    assert "2 speakers cannot fill 3 splits" in caplog.text
    assert sum(row.split == "test" for row in rows) == 20


def test_unknown_speakers_split_by_utterance_without_a_warning(caplog: pytest.LogCaptureFixture):
    rows = split(corpus(1, 100))
    assert sum(row.split == "validation" for row in rows) == 10
    assert not caplog.text


def test_declared_splits_are_kept_and_validation_is_taken_from_training():
    rows = corpus(20)
    declared: dict[str, Split] = {row.id: "test" if row.speaker in {"s1", "s2"} else "train" for row in rows}
    result = split(rows, declared)
    assert {row.id for row in result if row.split == "test"} == {i for i, name in declared.items() if name == "test"}
    assert sum(row.split == "validation" for row in result) == 20


def test_one_utterance_stays_in_training():
    assert [row.split for row in split(corpus(1, 1))] == ["train"]
    assert split([]) == []


def make_long(rows: list[Utterance], *ids: str) -> list[Utterance]:
    return [row.model_copy(update={"duration_s": 45.0}) if row.id in ids else row for row in rows]


def test_recordings_too_long_for_training_go_to_test_with_their_speakers():
    rows = split(make_long(corpus(20), "3-1", "7-0"))
    assert {row.split for row in rows if row.speaker in ("s3", "s7")} == {"test"}
    assert [sum(row.split == name for row in rows) for name in ("train", "validation", "test")] == [140, 20, 40]


def test_no_training_data_is_lost_where_every_speaker_has_a_long_recording(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        rows = split(make_long(corpus(5), *(f"{speaker}-0" for speaker in range(5))))
    assert {row.split for row in rows if row.duration_s > 30.0} == {"test"}
    assert sum(row.split == "train" for row in rows) > 30
    assert "splitting by utterance" in caplog.text


def test_declared_splits_are_kept_beside_long_recordings():
    rows = make_long(corpus(4), "0-0")
    declared: dict[str, Split] = {row.id: "train" for row in rows if row.id != "0-0"}
    of_id = {row.id: row.split for row in split(rows, declared)}
    assert of_id.pop("0-0") == "test"
    assert set(of_id.values()) == {"train", "validation"}
