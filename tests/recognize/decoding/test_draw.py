"""Greedy writing and drawing against a decoder whose every logit is written down."""

import numpy as np
import pytest
from scripted_decoder import END, NUM_TOKENS, VOCABULARY, ScriptedSession

from sottovoce.recognize.decoding.draw import Draw, draw_texts
from sottovoce.recognize.decoding.rules import TokenRules


def decode(session, *, limits, timestamps=False, draws=None):
    logits = session.start(np.full((len(limits), 3), 6))[:, -1]
    rules = TokenRules.of(VOCABULARY, num_tokens=NUM_TOKENS, timestamps=timestamps)
    return draw_texts(session, logits, rules=rules, draws=draws or [Draw(limit) for limit in limits])


def test_decoding_stops_at_the_end_token_of_the_last_window():
    session = ScriptedSession([[0], [END]], [[1], [2], [0], [END]])
    first, second = decode(session, limits=[9, 9])
    assert (first.token_ids, second.token_ids) == ((0,), (1, 2, 0))
    assert session.fed == [[0, 1], [END, 2], [END, 0]]


def test_each_window_has_its_own_limit():
    first, second, third = decode(ScriptedSession([[0]], [[1]], [[2]]), limits=[2, 4, 0])
    assert (first.token_ids, second.token_ids, third.token_ids) == ((0, 0), (1, 1, 1, 1), ())


def test_suppressed_tokens_give_way_to_the_next_best():
    (hypothesis,) = decode(ScriptedSession([[4, 3, 2], [4, 3, 2], [10, END]]), limits=[9])
    assert hypothesis.token_ids == (2, 3)


def test_timestamps_are_written_only_on_request():
    (without,) = decode(ScriptedSession([[11, 1], [END]]), limits=[9])
    (with_timestamps,) = decode(ScriptedSession([[11, 1], [END]]), limits=[9], timestamps=True)
    assert (without.token_ids, with_timestamps.token_ids) == ((1,), (11,))


def test_a_transcript_with_times_begins_with_one_and_ends_its_words_with_one():
    wishes = [[1, 11], [11, 1], [11, END], [END]]
    (hypothesis,) = decode(ScriptedSession(wishes), limits=[9], timestamps=True)
    assert hypothesis.token_ids == (11, 1)  # the only time there is cannot end what it started
    (untimed,) = decode(ScriptedSession(wishes), limits=[9])
    assert untimed.token_ids == (1, 1)


def test_the_mean_log_probability_counts_the_end_token():
    (hypothesis,) = decode(ScriptedSession([[0], [END]]), limits=[9])
    allowed_first, allowed_then = 3, 5  # tokens that are not suppressed
    first = 10 - np.log(np.exp(10.0) + allowed_first - 1)
    second = 10 - np.log(np.exp(10.0) + allowed_then - 1)
    assert hypothesis.avg_logprob == pytest.approx((first + second) / 2, abs=1e-6)
