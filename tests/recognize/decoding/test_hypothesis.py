import math

import numpy as np
import pytest
import torch

from sottovoce.recognize.decoding.session import Hypothesis, likeliest


def text(*logprobs: float) -> Hypothesis:
    return Hypothesis(token_ids=tuple(range(len(logprobs) - 1)), logprobs=logprobs)


def test_the_mean_counts_a_missing_end_token_as_whisper_does() -> None:
    assert Hypothesis((1, 2, 3), (-1.0, -1.0, -2.0)).avg_logprob == pytest.approx(-1.0)
    assert Hypothesis((1, 2), (-1.0, -1.0, -1.0)).avg_logprob == pytest.approx(-1.0)
    assert Hypothesis((), ()).avg_logprob == 0.0


def test_the_first_of_equals_is_chosen() -> None:
    first, second = text(-1.0, -1.0), Hypothesis((9,), (-2.0, 0.0))
    assert likeliest([first, second], length_penalty=None) is first


def test_an_empty_text_counts_as_one_token() -> None:
    empty, long = Hypothesis((), (-0.9,)), text(-0.5, -0.5, -0.5)
    assert likeliest([empty, long], length_penalty=None) is long
    assert likeliest([Hypothesis((), (-0.5,)), long], length_penalty=None).token_ids == ()


@pytest.mark.parametrize("length_penalty", [None, 0.0, 0.6, 1.0])
def test_the_choice_is_openai_whispers(length_penalty: float | None) -> None:
    decoding = pytest.importorskip("whisper.decoding", reason="openai-whisper is in the extra dev")
    generator = np.random.default_rng(0)
    ranker = decoding.MaximumLikelihoodRanker(length_penalty)
    for _ in range(200):
        found = [text(*(-generator.exponential(1.0, int(generator.integers(2, 30))))) for _ in range(5)]
        tokens = [torch.zeros(len(one.token_ids)) for one in found]
        (place,) = ranker.rank([tokens], [[one.sum_logprob for one in found]])
        assert likeliest(found, length_penalty=length_penalty) is found[place]
        assert math.isclose(found[place].avg_logprob, found[place].sum_logprob / (len(tokens[place]) + 1))
