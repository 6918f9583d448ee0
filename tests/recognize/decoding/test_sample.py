"""Greedy decoding and sampling, on a decoder with given logits."""

import numpy as np
import pytest
from scripted_decoder import END, NUM_TOKENS, VOCABULARY, ScriptedSession, in_order

from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.sample import Sampling, sample_texts


def decode(session, *, limits, timestamps=False, samplings=None):
    logits = session.start(np.full((len(limits), 3), 6))[:, -1]
    rules = TokenRules.of(VOCABULARY, num_tokens=NUM_TOKENS, timestamps=timestamps)
    samplings = samplings or [Sampling(limit) for limit in limits]
    return in_order(sample_texts(session, logits, rules=rules, samplings=samplings))


def test_decoding_stops_at_the_end_token_of_the_last_window():
    session = ScriptedSession([[0], [END]], [[1], [2], [0], [END]])
    first, second = decode(session, limits=[9, 9])
    assert (first.token_ids, second.token_ids) == ((0,), (1, 2, 0))
    assert session.fed == [[0, 1], [2], [0]], "a window that ended leaves the batch"


def test_a_finished_window_reads_end_tokens_until_enough_have_finished():
    scripts = [[[0], [END]], [[1], [1], [END]], *[[[2], [2], [2], [2], [END]]] * 3]
    session = ScriptedSession(*scripts)
    hypotheses = decode(session, limits=[9] * 5)
    assert [one.token_ids for one in hypotheses] == [(0,), (1, 1), *[(2, 2, 2, 2)] * 3]
    assert session.fed == [[0, 1, 2, 2, 2], [END, 1, 2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert [one.logprobs for one in decode(ScriptedSession(scripts[1]), limits=[9])] == [hypotheses[1].logprobs]


def test_each_window_has_its_own_limit():
    first, second, third = decode(ScriptedSession([[0]], [[1]], [[2]]), limits=[2, 4, 0])
    assert (first.token_ids, second.token_ids, third.token_ids) == ((0, 0), (1, 1, 1, 1), ())


def test_suppressed_tokens_are_replaced_by_the_next_best():
    (hypothesis,) = decode(ScriptedSession([[4, 3, 2], [4, 3, 2], [10, END]]), limits=[9])
    assert hypothesis.token_ids == (2, 3)


def test_timestamps_are_generated_only_on_request():
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


FLAT = [[[]]]  # every token that may be written is as likely as any other


def sampled(*samplings: Sampling) -> list[tuple[int, ...]]:
    found = decode(
        ScriptedSession(*FLAT * len(samplings)), limits=[sampling.limit for sampling in samplings], samplings=samplings
    )
    return [one.token_ids for one in found]


def sampling_of(seed: int, *, temperature: float = 1.0) -> Sampling:
    return Sampling(20, temperature, np.random.default_rng(seed))


def test_a_sampled_text_depends_on_its_seed_and_not_on_other_rows() -> None:
    together = sampled(*(sampling_of(seed) for seed in range(30)))
    assert together == [sampled(sampling_of(seed))[0] for seed in range(30)]
    assert len(set(together)) > 20


def test_tokens_are_sampled_with_their_probability_at_the_temperature() -> None:
    temperature, wishes = 4.0, [[[0, 1, 2]]]
    samplings = [Sampling(1, temperature, np.random.default_rng(seed)) for seed in range(1_000)]
    found = decode(ScriptedSession(*wishes * len(samplings)), limits=[1] * len(samplings), samplings=samplings)
    weights = np.exp(np.array([10.0, 9.0, 8.0]) / temperature)  # token 3 may not come first, and 4 never
    shares = np.bincount([one.token_ids[0] for one in found], minlength=3) / len(samplings)
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.05)


def test_log_probabilities_are_those_at_temperature_one() -> None:
    (cold,) = decode(ScriptedSession([[0], [END]]), limits=[9])
    (warm,) = decode(ScriptedSession([[0], [END]]), limits=[9], samplings=[Sampling(9, 0.2, np.random.default_rng(0))])
    assert warm == cold


def test_a_tiny_temperature_takes_the_likeliest() -> None:
    (found,) = decode(
        ScriptedSession([[0], [1], [END]]), limits=[9], samplings=[Sampling(9, 1e-6, np.random.default_rng(0))]
    )
    assert found.token_ids == (0, 1)
