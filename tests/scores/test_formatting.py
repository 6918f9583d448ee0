"""Casing, punctuation, and digits against words."""

import pytest
from scored_utterances import align

from sottovoce.scores.formatting import measure_formatting


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "counts"),
    [
        ("Hello, Anna.", "Hello, Anna.", "en", (2, 0, 2, 0)),
        ("Hello, Anna.", "hello anna", "en", (2, 2, 2, 2)),
        ("Hello Anna", "Hello, Anna!", "en", (2, 0, 2, 2)),
        ("Is it? Yes.", "Is it. Yes.", "en", (3, 0, 2, 1)),
        ("don't e-mail", "don't e-mail", "en", (2, 0, 0, 0)),
        ("¿Qué? Nada.", "Qué? Nada.", "es", (2, 0, 3, 1)),
        ("One, two, three.", "One, three.", "en", (2, 0, 3, 1)),
        ("One, two.", "One, and, two.", "en", (2, 0, 3, 1)),
        ("你好、世界。", "你好世界。", "zh", (0, 0, 2, 1)),
        ("नमस्ते। राम", "नमस्ते राम", "hi", (0, 0, 1, 1)),
        ("", "Thanks.", "en", (0, 0, 1, 1)),
        ("Straße — gut", "STRASSE gut", "de", (2, 1, 1, 1)),
    ],
)
def test_casing_and_punctuation_are_compared_where_the_words_are_aligned(reference, hypothesis, language, counts):
    found = measure_formatting(align((reference, hypothesis, {"language": language})))
    assert (found.num_cased, found.num_casing_errors, found.num_marks, found.num_mark_errors) == counts


def test_rates_are_none_where_nothing_is_compared():
    found = measure_formatting(align(("你好", "你好", {"language": "zh"})))
    assert (found.casing_error_rate, found.punctuation_error_rate) == (None, None)
    assert measure_formatting(align(("Hi, you", "hi you", {}))).punctuation_error_rate == 1.0


def test_a_drift_from_words_to_digits_is_warned_of_and_like_spelling_is_not():
    digits, words = "call 318 2819", "call three one eight two eight one nine"
    assert "the model writes digits" in (measure_formatting(align((words, digits, {}))).drift or "")
    assert "the model writes words" in (measure_formatting(align((digits, words, {}))).drift or "")
    assert measure_formatting(align((digits, digits, {}))).drift is None
    assert measure_formatting(align((words, words, {}))).drift is None
