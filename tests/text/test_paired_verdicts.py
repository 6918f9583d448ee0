"""The simulation behind the promise of paired verdicts, with few pairs."""

import numpy as np
import pytest

from benchmarks.paired_verdicts import SITUATIONS, Situation, judge_pairs, simulate_pair


def test_equal_models_are_rarely_told_apart_and_a_much_better_one_mostly_is():
    situation = next(one for one in SITUATIONS if one.name == "12 speakers")
    row = judge_pairs(situation, 5, np.random.default_rng(0), num_equal_pairs=10)
    assert row["false_alarms"] <= 0.1
    assert row["power_at_40%_fewer_errors"] >= 0.5


def test_simulated_models_make_errors_at_their_true_rates():
    situation = Situation(name="large", num_speakers=400, utterances_each=20)
    first, second, words = simulate_pair(situation, 0.5, np.random.default_rng(0))
    assert first.sum() / words.sum() == pytest.approx(0.1, rel=0.1)
    assert second.sum() / first.sum() == pytest.approx(0.5, rel=0.1)
