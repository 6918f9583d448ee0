import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from sottovoce.recognize.timestamps import TimedText, apply_timestamp_rules, split_at_timestamps

FROM, END = 100, 50
DURATION_S = 5.0


def at(seconds: float) -> int:
    return FROM + round(seconds * 50)


def split(*token_ids: int) -> list[TimedText]:
    return split_at_timestamps(
        token_ids, timestamps_from=FROM, decode=lambda ids: " ".join(map(str, ids)), duration_s=DURATION_S
    )


def test_words_stand_between_their_times() -> None:
    pieces = split(at(0.0), 1, 2, at(2.34), at(2.5), 3, at(4.0))
    assert pieces == [TimedText(0.0, 2.34, "1 2"), TimedText(2.5, 4.0, "3")]


def test_a_doubled_time_is_an_end_and_a_start() -> None:
    pieces = split(at(0.0), 1, at(2.34), at(2.34), 2, at(4.0))
    assert pieces == [TimedText(0.0, 2.34, "1"), TimedText(2.34, 4.0, "2")]


def test_one_time_between_words_ends_the_first_and_starts_the_second() -> None:
    assert split(at(0.0), 1, at(2.0), 2, at(3.0)) == [TimedText(0.0, 2.0, "1"), TimedText(2.0, 3.0, "2")]


def test_words_without_an_end_last_until_the_window_ends() -> None:
    assert split(at(1.0), 1, at(2.0), at(3.0), 2) == [TimedText(1.0, 2.0, "1"), TimedText(3.0, DURATION_S, "2")]


def test_words_without_any_time_are_one_piece_of_the_whole_window() -> None:
    assert split(1, 2) == [TimedText(0.0, DURATION_S, "1 2")]


def test_words_before_the_first_time_begin_at_zero() -> None:
    assert split(1, at(1.0), at(2.0), 2, at(3.0)) == [TimedText(0.0, 1.0, "1"), TimedText(2.0, 3.0, "2")]


def test_nothing_and_times_alone_give_no_piece() -> None:
    assert split() == []
    assert split(at(0.0), at(1.0), at(2.0)) == []


def test_times_neither_decrease_nor_pass_the_windows_end() -> None:
    pieces = split(at(2.0), 1, at(1.0), at(0.5), 2, at(9.0))
    assert pieces == [TimedText(2.0, 2.0, "1"), TimedText(2.0, DURATION_S, "2")]


def test_words_that_decode_to_nothing_are_left_out() -> None:
    pieces = split_at_timestamps(
        [at(0.0), 7, at(1.0)], timestamps_from=FROM, decode=lambda _ids: " ", duration_s=DURATION_S
    )
    assert pieces == []


def allowed(*written: int, scores: dict[int, float] | None = None) -> set[int]:
    """The tokens that may follow, of 0 to 119."""
    logits = np.zeros((1, 120), np.float32)
    for token, value in (scores or {}).items():
        logits[0, token] = value
    logits[:, END + 1 : FROM] = -np.inf
    apply_timestamp_rules(logits, np.array([written], np.int64), timestamps_from=FROM, end_id=END)
    return set(np.flatnonzero(np.isfinite(logits[0])).tolist())


def test_the_first_token_is_a_time_or_the_end() -> None:
    assert allowed(scores={END: 9.0, 3: 10.0}) == {END, *range(FROM, 120)}


def test_words_follow_a_start_and_a_start_or_the_end_an_end() -> None:
    assert allowed(FROM) == set(range(END + 1))
    assert allowed(FROM, 1, FROM + 5, scores={END: 9.0}) == {END, *range(FROM + 5, 120)}


def test_times_do_not_decrease_and_no_segment_is_empty() -> None:
    assert allowed(FROM + 5, 1, scores={1: 9.0}) == {*range(END + 1), *range(FROM + 6, 120)}


def test_times_are_preferred_where_they_are_likelier_together() -> None:
    assert allowed(FROM, 1, scores={2: 2.0}) == set(range(FROM + 1, 120))  # 19 times of e^0 outweigh e^2
    assert 2 in allowed(FROM, 1, scores={2: 4.0})


@pytest.mark.parametrize("num_written", [0, 1, 2, 3, 6])
def test_the_rules_are_those_of_transformers(num_written: int) -> None:
    generator = np.random.default_rng(num_written)
    generation = GenerationConfig(eos_token_id=END, bos_token_id=END, no_timestamps_token_id=FROM - 1)
    processor = WhisperTimeStampLogitsProcessor(generation, begin_index=3)
    logits = generator.normal(0.0, 3.0, (200, 120)).astype(np.float32)
    logits[:, FROM - 1] = -np.inf
    if num_written == 0:
        logits[:, END] = -np.inf  # as stock Whispers have it
    words, times = (
        generator.integers(0, END, (200, num_written)),
        FROM + np.sort(generator.integers(0, 15, num_written)),
    )
    written = np.where(generator.random((200, num_written)) < 0.5, words, times)
    ids = torch.from_numpy(np.concatenate([np.zeros((200, 3), np.int64), written], axis=1))
    expected = processor(ids, torch.from_numpy(logits.copy())).numpy()
    apply_timestamp_rules(logits, written, timestamps_from=FROM, end_id=END)
    assert np.array_equal(logits, expected)
