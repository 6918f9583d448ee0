import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from sottovoce.model.labels import NUM_TIMESTAMPS, TokenKinds
from sottovoce.recognize.decoding.rules import apply_timestamp_rules

FROM, END = 100, 50


def allowed(
    *written: int, scores: dict[int, float] | None = None, limit: int | None = None, num_tokens: int = 120
) -> set[int]:
    """The tokens that may follow, of 0 to 119."""
    logits = np.zeros((1, num_tokens), np.float32)
    for token, value in (scores or {}).items():
        logits[0, token] = value
    logits[:, END + 1 : FROM] = -np.inf
    apply_timestamp_rules(logits, np.array([written], np.int64), kinds=TokenKinds(END, FROM), max_initial_index=limit)
    return set(np.flatnonzero(np.isfinite(logits[0])).tolist())


def test_the_first_token_is_a_time_or_the_end() -> None:
    assert allowed(scores={END: 9.0, 3: 10.0}) == {END, *range(FROM, 120)}


def test_the_first_time_is_within_its_limit() -> None:
    assert allowed(limit=3) == set(range(FROM, FROM + 4))
    assert max(allowed(FROM, 1, scores={2: 0.0}, limit=3)) == 119


def test_words_follow_a_start_and_a_start_or_the_end_an_end() -> None:
    assert allowed(FROM) == set(range(END + 1))
    assert allowed(FROM, 1, FROM + 5, scores={END: 9.0}) == {END, *range(FROM + 5, 120)}


def test_times_do_not_decrease_and_no_segment_is_empty() -> None:
    assert allowed(FROM + 5, 1, scores={1: 9.0}) == {*range(END + 1), *range(FROM + 6, 120)}


def test_timestamps_are_preferred_if_they_are_likelier_together() -> None:
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
    apply_timestamp_rules(logits, written, kinds=TokenKinds(END, FROM), max_initial_index=None)
    assert np.array_equal(logits, expected)


WITH_ADDED = FROM + NUM_TIMESTAMPS + 3  # three tokens of text above the times


def test_tokens_above_the_times_are_words() -> None:
    added = set(range(FROM + NUM_TIMESTAMPS, WITH_ADDED))
    assert not added & allowed(num_tokens=WITH_ADDED)
    assert added <= allowed(FROM, num_tokens=WITH_ADDED)
    assert not added & allowed(FROM, 1, FROM + 5, num_tokens=WITH_ADDED)
    assert added <= allowed(FROM, 1, scores={WITH_ADDED - 1: 20.0}, num_tokens=WITH_ADDED)
    assert max(allowed(FROM, WITH_ADDED - 1, num_tokens=WITH_ADDED)) == FROM + NUM_TIMESTAMPS - 1
