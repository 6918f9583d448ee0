"""The fallback over temperatures, with decoders whose logits are written down."""

from dataclasses import replace

import numpy as np
import pytest
from scripted_decoder import END, NO_SPEECH, NUM_TOKENS, START, VOCABULARY, ScriptedSession, TreeSession, in_order

from sottovoce.recognize.decoding.attempt import Attempt
from sottovoce.recognize.decoding.fallback import decode_with_fallback
from sottovoce.recognize.decoding.loops import loop_rule
from sottovoce.recognize.decoding.stepwise import StepwiseDecoder
from sottovoce.schema import DecodeOptions

FLAT: list[list[int]] = [[]]  # as likely as each other: at 0 the first token for ever, above it texts of all kinds
SHORT: list[list[int]] = [[0], [1], [END]]
LADDER = DecodeOptions(temperatures=(0.0, 0.5, 1.0), logprob_threshold=None, max_new_tokens=100)


def decode(session, *options: DecodeOptions, max_rows: int = 16) -> list[Attempt]:
    return decode_after([[START, 7, 10]] * len(options), session, *options, max_rows=max_rows)


def decode_after(prefix: list[list[int]], session, *options: DecodeOptions, max_rows: int = 16) -> list[Attempt]:
    decoder = StepwiseDecoder(session, VOCABULARY, num_windows=len(options))
    steps = decode_with_fallback(decoder, np.array(prefix), options, vocabulary=VOCABULARY, max_rows=max_rows)
    return in_order(steps)


def test_a_plausible_text_is_kept_at_the_first_temperature() -> None:
    (attempt,) = decode(ScriptedSession(SHORT), LADDER)
    assert (attempt.temperature, attempt.hypothesis.token_ids) == (0.0, (0, 1))


def test_only_windows_that_failed_are_decoded_again() -> None:
    session = ScriptedSession(SHORT, FLAT, SHORT)
    first, second, third = decode(session, LADDER, LADDER, LADDER)
    assert [first.temperature, second.temperature, third.temperature] == [0.0, 0.5, 0.0]
    assert session.selected == [[1]]
    assert set(second.hypothesis.token_ids) != {0}


def test_the_likeliest_text_is_kept_where_no_temperature_gives_a_plausible_one() -> None:
    said = TreeSession({(0,) * length: {0: 0.9, 1: 0.1} for length in range(60)})  # above 0 it ends after token 1
    nothing_passes = replace(LADDER, compression_ratio_threshold=0.0)
    (attempt,) = decode(said, nothing_passes)
    assert (attempt.temperature, attempt.hypothesis.token_ids) == (0.0, (0,) * 60)
    (only,) = decode(ScriptedSession(FLAT), replace(LADDER, temperatures=(0.0,)))
    assert set(only.hypothesis.token_ids) == {0}


def test_the_text_of_a_window_does_not_depend_on_other_windows() -> None:
    options = [replace(LADDER, seed=seed) for seed in range(6)]
    together = decode(ScriptedSession(*[FLAT] * 6), *options)
    alone = [decode(ScriptedSession(FLAT), one)[0] for one in options]
    assert together == alone
    assert len({one.hypothesis.token_ids for one in together}) > 1


def test_windows_with_other_temperatures_and_searches_share_a_batch() -> None:
    options = [
        replace(LADDER, beam_size=3),
        replace(LADDER, temperatures=(1.0,), best_of=4),
        LADDER,
        replace(LADDER, beam_size=3),
        replace(LADDER, temperatures=(1.0,)),
    ]
    together = decode(ScriptedSession(*[SHORT] * 5), *options)
    assert [one.hypothesis.token_ids for one in together] == [(0, 1)] * 5
    assert [one.temperature for one in together] == [0.0, 1.0, 0.0, 0.0, 1.0]


def test_of_several_samples_the_likeliest_is_kept() -> None:
    tree = {(): {0: 0.5, 1: 0.5}, (0,): {0: 0.2, 1: 0.2, 2: 0.2, 3: 0.2, END: 0.2}}
    options = DecodeOptions(temperatures=(1.0,), best_of=8, logprob_threshold=None)
    (attempt,) = decode(TreeSession(tree), options)
    assert attempt.hypothesis.token_ids == (1,)
    texts = {
        decode(TreeSession(tree), replace(options, best_of=1, seed=seed))[0].hypothesis.token_ids for seed in range(9)
    }
    assert len(texts) > 1


def test_at_most_max_rows_texts_are_generated_at_once() -> None:
    session = ScriptedSession(*[SHORT] * 5)
    options = DecodeOptions(temperatures=(1.0,), best_of=3)
    decode(session, *[options] * 5, max_rows=6)
    assert session.selected == [[0, 1], [2, 3], [4]]


def test_the_no_speech_probability_is_read_at_the_start_token() -> None:
    class Silent(ScriptedSession):
        def start(self, prefix, positions=None):
            logits = super().start(prefix)
            logits[:, 2, NO_SPEECH] = np.log(NUM_TOKENS - 1)
            return logits[:, list(positions)]

    after_a_prompt = [[8, 0, START, 7, 10]]
    (attempt,) = decode_after(after_a_prompt, Silent([[END], [END]]), DecodeOptions())
    assert attempt.no_speech_prob == pytest.approx(0.5)


@pytest.mark.parametrize("beam_size", [1, 2])
def test_prefix_and_text_stay_within_the_decoders_positions(beam_size: int) -> None:
    prefix = [[8] + [0] * 223 + [START, 7, 10]]
    endless = TreeSession({(0,) * length: {0: 1.0} for length in range(448)})
    (attempt,) = decode_after(prefix, endless, DecodeOptions(max_new_tokens=10_000, beam_size=beam_size))
    assert len(attempt.hypothesis.token_ids) == 448 - len(prefix[0])


ENDLESS = [[0]]
REPEATED = DecodeOptions(temperatures=(0.0, 1.0), logprob_threshold=None, max_new_tokens=200)


def test_a_text_that_repeats_itself_ends_early_if_another_temperature_follows() -> None:
    session = ScriptedSession(ENDLESS, SHORT)
    looped, said = decode(session, REPEATED, REPEATED)
    assert len(session.fed) < 60
    assert said.hypothesis.token_ids == (0, 1)
    # sampling from such logits gives the same text again, at the last temperature to its end
    assert (len(looped.hypothesis.token_ids), looped.hypothesis.is_cut) == (200, False)
    (only,) = decode(ScriptedSession(ENDLESS), replace(REPEATED, temperatures=(0.0,)))
    assert len(only.hypothesis.token_ids) == 200


def test_a_text_that_was_cut_and_is_the_likeliest_is_generated_as_a_whole() -> None:
    said = TreeSession({(0,) * length: {0: 0.9, 1: 0.1} for length in range(60)})  # above 0 it ends after token 1
    nothing_passes = replace(REPEATED, compression_ratio_threshold=0.0)
    (attempt,) = decode(said, nothing_passes)
    assert (attempt.temperature, attempt.hypothesis.token_ids) == (0.0, (0,) * 60)
    assert not attempt.hypothesis.is_cut


@pytest.mark.parametrize("phrase", [[0], [0, 1], [0, 1, 2] * 5 + [1]])
def test_a_phrase_of_at_most_16_tokens_is_a_loop(phrase: list[int]) -> None:
    is_loop = loop_rule(REPEATED, 0, VOCABULARY)
    tokens = (phrase * 96)[:96]
    assert not any(is_loop([2, *tokens][:length]) for length in range(48))
    assert is_loop([2, *tokens][:96])
    with_times = [
        token for index, token in enumerate(tokens) for token in ((11, token) if index % 16 == 0 else (token,))
    ]
    assert is_loop(with_times[:96])


def test_varied_and_short_texts_are_no_loops_and_neither_is_the_last_temperatures() -> None:
    is_loop = loop_rule(REPEATED, 0, VOCABULARY)
    varied = np.random.default_rng(0).integers(0, 3, 96).tolist()
    assert not any(is_loop(varied[:length]) for length in range(97))
    assert loop_rule(REPEATED, 1, VOCABULARY) is None
    assert loop_rule(replace(REPEATED, compression_ratio_threshold=None), 0, VOCABULARY) is None
