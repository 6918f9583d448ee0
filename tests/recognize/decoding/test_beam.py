"""Beam search over trees of texts whose probabilities are written down."""

import numpy as np
import pytest
from scripted_decoder import END, NUM_TOKENS, VOCABULARY, TreeSession, in_order

from sottovoce.recognize.decoding.beam import BeamSettings, search_beams
from sottovoce.recognize.decoding.rules import TokenRules
from sottovoce.recognize.decoding.session import Hypothesis, likeliest

# The likeliest first letter leads nowhere: "a" goes on in three equal ways, and "bc" is sure to end.
TREE = {(): {0: 0.6, 1: 0.4}, (0,): {0: 0.3, 1: 0.3, 2: 0.3, END: 0.1}, (1,): {2: 1.0}}
FOREVER = {(0,) * length: {0: 1.0} for length in range(20)}
TWO = {(): {0: 0.9, 1: 0.1}}


def search(session: TreeSession, *settings: BeamSettings) -> list[list[Hypothesis]]:
    logits = session.start(np.full((len(settings), 3), 6))[:, -1]
    rules = TokenRules.of(VOCABULARY, num_tokens=NUM_TOKENS, timestamps=False)
    return in_order(search_beams(session, logits, rules=rules, settings=settings))


def best(found: list[Hypothesis]) -> tuple[int, ...]:
    return likeliest(found, length_penalty=None).token_ids


def test_a_text_with_a_less_likely_start_wins_if_it_continues_likelier() -> None:
    (found,) = search(TreeSession(TREE), BeamSettings(beam_size=2, patience=1.0, limit=9))
    assert best(found) == (1, 2)
    assert found[0].sum_logprob == pytest.approx(np.log(0.4), abs=1e-4)


def test_patience_waits_for_more_texts_to_end() -> None:
    (impatient,) = search(TreeSession(TREE), BeamSettings(beam_size=2, patience=0.5, limit=9))
    (patient,) = search(TreeSession(TREE), BeamSettings(beam_size=2, patience=2.0, limit=9))
    assert [one.token_ids for one in impatient] == [(1, 2)]
    assert [one.token_ids for one in patient] == [(1, 2), (0, 0)]


def test_unfinished_texts_count_at_the_limit() -> None:
    (found,) = search(TreeSession(TWO), BeamSettings(beam_size=2, patience=1.0, limit=1))
    assert [one.token_ids for one in found] == [(0,), (1,)]
    assert all(len(one.logprobs) == 1 for one in found)


def test_a_finished_window_leaves_the_batch() -> None:
    session = TreeSession(TREE, FOREVER, TREE)
    found = search(session, *[BeamSettings(beam_size=2, patience=1.0, limit=limit) for limit in (9, 6, 0)])
    assert [best(texts) for texts in found] == [(1, 2), (0, 0, 0, 0, 0, 0), ()]
    assert session.num_rows == [3, 3, 1, 1, 1]


def test_the_texts_of_a_window_do_not_depend_on_other_windows() -> None:
    settings = BeamSettings(beam_size=3, patience=1.0, limit=8)
    together = search(TreeSession(TREE, FOREVER), settings, settings)
    alone = [search(TreeSession(tree), settings)[0] for tree in (TREE, FOREVER)]
    assert together == alone


def test_forbidden_tokens_are_in_no_text() -> None:
    (found,) = search(TreeSession({(): {END: 0.9, 4: 0.05, 0: 0.05}}), BeamSettings(beam_size=5, patience=1.0, limit=3))
    assert all(one.token_ids and 4 not in one.token_ids for one in found)
