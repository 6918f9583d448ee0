"""Which decoding takes the next step. Seconds are given, not measured."""

import numpy as np
import pytest

from serve.turns import RunningBatch, Turns
from serve.window import Window
from sottovoce.recognize.steps import BatchDecoding, Step
from sottovoce.schema import DecodeOptions


class Waiting:
    """A window whose caller waits for ever."""

    is_settled = False
    window = Window(np.zeros(1, np.int16), DecodeOptions())


def batch(name: str, *, num_tokens: int = 0, has_begun: bool = False) -> RunningBatch:
    running = RunningBatch(name, None, BatchDecoding((0,), iter(())), [Waiting()])
    running.num_tokens, running.seconds = num_tokens, 1.0 if has_begun else 0.0
    return running


def order(turns: Turns, count: int, *, encoding_s: float = 0.4, token_s: float = 0.01) -> str:
    """Take steps; return the names of the decodings that took them."""
    names = ""
    for _ in range(count):
        chosen = turns.choose()
        names += chosen.key
        seconds = token_s if chosen.has_begun else encoding_s
        turns.take(chosen, Step({}, chosen.num_tokens + chosen.has_begun), seconds=seconds)
    return names


def turns_of(*batches: RunningBatch) -> Turns:
    turns = Turns()
    for one in batches:
        turns.add(one)
    return turns


def test_a_fresh_decoding_goes_on_before_the_next_is_encoded() -> None:
    first = batch("a")
    turns = turns_of(first, batch("b"))
    assert order(turns, 30) == "a" * 30
    turns.remove(first)
    assert order(turns, 10) == "b" * 10


def test_long_decodings_share_what_is_left_equally() -> None:
    long = [batch(name, num_tokens=100, has_begun=True) for name in "xyz"]
    assert order(turns_of(*long), 9) == "xyzxyzxyz"


def test_a_long_decoding_takes_single_steps_between_those_of_a_fresh_one() -> None:
    turns = turns_of(batch("x", num_tokens=100, has_begun=True), batch("a", has_begun=True))
    names = order(turns, 40)
    assert "xx" not in names
    assert names.count("x") == pytest.approx(10, abs=1)


def test_encoding_leaves_a_quarter_of_the_time_to_long_decodings() -> None:
    turns = turns_of(batch("x", num_tokens=100, has_begun=True), batch("a"), batch("b"))
    names = order(turns, 100)
    assert names.index("b") > 48
    before = names[: names.index("b")]
    fresh_s = 0.4 + 0.01 * (before.count("a") - 1)
    assert 0.01 * before.count("x") == pytest.approx(fresh_s / 3, abs=0.02)


def test_a_decoding_is_long_after_more_tokens_than_most_sentences_have() -> None:
    turns = turns_of(batch("a", has_begun=True), batch("b", has_begun=True))
    assert order(turns, 49) == "a" * 49
    assert turns.has_fresh
    order(turns, 80)
    assert not turns.has_fresh


def test_windows_count_until_they_are_settled() -> None:
    running = batch("a")
    turns = turns_of(running, batch("b"))
    assert (len(turns), turns.num_windows) == (2, 2)
    running.windows[0].is_settled = True
    assert (turns.num_windows, running.is_over) == (1, True)
    turns.remove(running)
    assert len(turns) == 1
