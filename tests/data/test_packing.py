from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.data.packing import make_examples
from sottovoce.schema import Example, Utterance


def utterance(name: str, duration_s: float = 1.0, **fields: object) -> Utterance:
    values = {"id": name, "audio": f"{name}.wav", "duration_s": duration_s, "text": f"word {name}"}
    return Utterance.model_validate(values | fields)


def ids_of(examples: tuple[Example, ...]) -> list[list[str]]:
    return [[one.id for one in example.utterances] for example in examples]


def speaker_utterances(speaker: str, durations_s: np.ndarray, **fields: object) -> list[Utterance]:
    return [utterance(f"{speaker}{i}", float(s), speaker=speaker, **fields) for i, s in enumerate(durations_s)]


def test_without_packing_each_training_utterance_is_an_example() -> None:
    given = [utterance("a"), utterance("b", split="validation"), utterance("c", split="test"), utterance("d")]
    assert ids_of(make_examples(given)) == [["a"], ["d"]]


def test_pieces_of_a_recording_are_joined_in_the_order_of_their_ids() -> None:
    pieces = [utterance(f"call-{i}", recording="call", speaker=f"s{i % 2}") for i in (10, 2, 9, 1)]
    assert ids_of(make_examples(pieces, pack_s=3.0)) == [["call-10"], ["call-1", "call-2", "call-9"]]


def test_pieces_of_one_audio_file_are_joined_in_the_order_of_their_starts() -> None:
    pieces = [utterance(name, audio="long.flac", start_s=start) for name, start in (("z", 0.0), ("b", 2.0), ("a", 5.0))]
    assert ids_of(make_examples(pieces[::-1], pack_s=30.0)) == [["z", "b", "a"]]


def test_utterances_of_a_speaker_fill_examples_up_to_the_limit() -> None:
    random = np.random.default_rng(0)
    given = speaker_utterances("x", random.uniform(1, 9, 200)) + speaker_utterances("y", random.uniform(2, 15, 100))
    examples = make_examples(given, pack_s=30.0)
    assert sorted(one.id for example in examples for one in example.utterances) == sorted(one.id for one in given)
    assert all(len({one.speaker for one in example.utterances}) == 1 for example in examples)
    assert max(example.duration_s for example in examples) <= 30.0 + 1e-4
    assert np.mean([example.duration_s for example in examples]) / 30.0 > 0.97


def test_packing_is_the_same_each_time_and_in_the_order_of_the_manifest() -> None:
    given = speaker_utterances("x", np.random.default_rng(1).uniform(1, 9, 50))
    examples = make_examples(given, pack_s=10.0)
    assert ids_of(examples) == ids_of(make_examples(given, pack_s=10.0))
    places = [[given.index(one) for one in example.utterances] for example in examples]
    assert all(one == sorted(one) for one in places)
    assert [one[0] for one in places] == sorted(one[0] for one in places)


@pytest.mark.parametrize("field", ["language", "task", "corpus", "speaker"])
def test_utterances_that_differ_are_not_joined(field: str) -> None:
    values = {
        "language": ("en", "de"),
        "task": ("transcribe", "translate"),
        "corpus": ("a", "b"),
        "speaker": ("s", "t"),
    }
    shared = {"speaker": "s"} | {"speaker": "s", field: values[field][0]}
    given = [utterance("1", **shared), utterance("2", **(shared | {field: values[field][1]}))]
    assert len(make_examples(given, pack_s=30.0)) == 2


def test_no_speech_and_unknown_voices_stay_alone() -> None:
    given = [
        utterance("silence", speaker="s", text=""),
        utterance("a", speaker="s"),
        utterance("b", speaker="s"),
        utterance("stranger"),
        utterance("other stranger"),
    ]
    packed = [["silence"], ["a", "b"], ["stranger"], ["other stranger"]]
    assert ids_of(make_examples(given, pack_s=30.0)) == packed


def test_a_pause_without_speech_splits_a_recording() -> None:
    pieces = [utterance(f"{i}", recording="r", text="" if i == 2 else "word") for i in range(1, 6)]
    assert ids_of(make_examples(pieces, pack_s=30.0)) == [["1"], ["2"], ["3", "4", "5"]]


def test_an_utterance_beyond_the_limit_stays_whole_and_alone() -> None:
    given = [utterance("long", 12.0, speaker="s"), utterance("short", 1.0, speaker="s")]
    assert ids_of(make_examples(given, pack_s=10.0)) == [["long"], ["short"]]


def test_labels_with_their_times_stay_within_the_decoder() -> None:
    given = [utterance(f"{i:03d}", 0.1, speaker="s", text="one two three") for i in range(200)]
    sizes = [len(example.utterances) for example in make_examples(given, pack_s=30.0)]
    assert sum(sizes) == 200
    assert max(sizes) * (3 + 2) + 5 <= 448
    assert max(sizes) > 70  # 5 tokens each: 88 fit


def test_previous_text_is_that_of_the_piece_before() -> None:
    pieces = [utterance(f"{i}", 2.0, recording="r") for i in range(1, 6)]
    assert [one.previous_text for one in make_examples(pieces)] == [None, "word 1", "word 2", "word 3", "word 4"]
    assert [one.previous_text for one in make_examples(pieces, pack_s=4.0)] == [None, "word 2", "word 4"]


@pytest.mark.parametrize("change", [{"split": "validation"}, {"text": " "}, {"language": "de"}, {"task": "translate"}])
def test_there_is_no_previous_text_if_the_piece_before_does_not_count(change: dict[str, object]) -> None:
    pieces = [utterance("1", recording="r"), utterance("2", recording="r", **change), utterance("3", recording="r")]
    examples = {example.id: example for example in make_examples(pieces)}
    assert examples["3"].previous_text is None


def test_spoken_digits_fill_their_examples(shared_data: Path) -> None:
    digits = [
        utterance(path.stem, soundfile.info(path).duration, speaker=path.stem.split("_")[1], text="one")
        for path in sorted((shared_data / "fsdd").rglob("*.wav"))[::2]
    ]
    examples = make_examples(digits, pack_s=10.0)
    assert sum(len(example.utterances) for example in examples) == len(digits) > 500
    assert (
        sum(example.duration_s for example in examples) / (10.0 * len(examples)) > 0.93
    )  # four speakers, each with a rest
