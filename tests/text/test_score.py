import jiwer
import numpy as np
import pytest

from sottovoce.text.score import score_texts

WORDS = ["the", "patient", "denies", "chest", "pain", "and", "was", "given", "two", "tablets", "of", "aspirin"]


def random_texts(num_texts: int) -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(7)
    references = [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range(num_texts)]
    hypotheses = [
        " ".join(word for word in generator.permutation(text.split()) if generator.random() > 0.2)
        for text in references
    ]
    return references, hypotheses


def test_rates_and_counts_equal_jiwer():
    references, hypotheses = random_texts(200)
    score = score_texts(references, hypotheses, normalizer="none")
    words, characters = jiwer.process_words(references, hypotheses), jiwer.process_characters(references, hypotheses)
    assert score.wer.rate == pytest.approx(words.wer, abs=1e-12)
    assert score.cer.rate == pytest.approx(characters.cer, abs=1e-12)
    for ours, theirs in ((score.wer, words), (score.cer, characters)):
        counts = (ours.substitutions, ours.deletions, ours.insertions)
        assert counts == (theirs.substitutions, theirs.deletions, theirs.insertions)
        assert ours.num_reference == theirs.hits + theirs.substitutions + theirs.deletions
    assert score.num_utterances == 200


def test_normalized_and_raw_differ_by_the_normalizer_only():
    score = score_texts(["Two tablets."], ["2 tablets"], normalizer="english")
    assert (score.wer.rate, score.cer.rate, score.normalizer) == (0.0, 0.0, "english")
    assert score.wer_raw.rate == 1.0
    assert score.cer_raw.rate > 0.0


def test_empty_references_count_insertions_and_empty_hypotheses_deletions():
    score = score_texts(["", "a b", "  "], ["x y z", "", "\n"], normalizer="none")
    assert (score.wer.insertions, score.wer.deletions, score.wer.substitutions) == (3, 2, 0)
    assert score.wer.num_reference == 2
    assert score.wer.rate == 2.5
    assert (score.cer.insertions, score.cer.deletions) == (5, 3)


def test_only_empty_references_give_a_finite_rate():
    score = score_texts(["", ""], ["", "two words"], normalizer="none")
    assert (score.wer.rate, score.wer.num_reference) == (2.0, 0)
    assert np.isfinite(score.wer.high)


def test_no_utterances_score_zero():
    score = score_texts([], [], normalizer="basic")
    assert (score.wer.rate, score.wer.low, score.wer.high, score.num_utterances) == (0.0, 0.0, 0.0, 0)


def test_a_corpus_is_averaged_over_words_not_utterances():
    score = score_texts(["a", "b c d"], ["x", "b c d"], normalizer="none")
    assert score.wer.rate == 0.25


def test_interval_of_a_coin_has_the_binomial_width():
    references = ["a"] * 400
    hypotheses = ["a"] * 300 + ["b"] * 100
    wer = score_texts(references, hypotheses, normalizer="none").wer
    half_width = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert wer.low == pytest.approx(0.25 - half_width, abs=0.006)
    assert wer.high == pytest.approx(0.25 + half_width, abs=0.006)


def test_interval_of_a_certain_result_is_a_point():
    wer = score_texts(["a"] * 10, ["a"] * 10, normalizer="none").wer
    assert (wer.low, wer.high) == (0.0, 0.0)


def test_the_same_seed_repeats_the_interval_and_another_seed_changes_it():
    references, hypotheses = random_texts(50)
    first = score_texts(references, hypotheses, normalizer="none", seed=1)
    assert first == score_texts(references, hypotheses, normalizer="none", seed=1)
    assert first.wer.low != score_texts(references, hypotheses, normalizer="none", seed=2).wer.low


def test_different_numbers_of_texts_are_refused():
    with pytest.raises(ValueError, match="zip"):
        score_texts(["a"], [], normalizer="none")
