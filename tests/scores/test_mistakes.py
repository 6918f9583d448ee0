"""Invented words, loops, substitutions, and the recall of terms."""

import pytest
from scored_utterances import align

from sottovoce.scores.mistakes import (
    count_invented,
    count_substitutions,
    find_loops,
    find_rare_words,
    recall_terms,
)


def test_words_in_recordings_without_speech_are_counted_by_the_minute_and_by_column():
    scored = align(
        ("", "thank you", {"duration_s": 30.0}),
        ("", "", {"duration_s": 60.0}),
        ("one", "one two", {"duration_s": 30.0}),
    )
    everything, music, noise = count_invented(scored, {"kind": {"0": "music", "1": "noise", "2": "speech"}})
    assert (everything.name, everything.num_utterances, everything.num_with_words) == ("all", 2, 1)
    assert (everything.minutes, everything.num_words) == (1.5, 2)
    assert everything.words_per_minute == pytest.approx(2 / 1.5)
    assert (music.name, music.words_per_minute) == ("kind music", 4.0)
    assert (noise.name, noise.num_words) == ("kind noise", 0)
    assert count_invented(scored[2:], {}) == ()


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "found"),
    [
        ("he left", "he left " + "of the house " * 5, "en", ("of the house", 5)),
        ("he left", "la " * 30, "en", ("la", 30)),
        ("no no no no no no no no no", "no no no no no no no no no", "en", None),
        ("very good", "very very very good", "en", None),
        ("他走了", "他走了" + "谢谢" * 6, "zh", None),
        ("他走了", "他走了" + "字幕" * 6, "zh", ("字幕", 6)),
    ],
)
def test_a_phrase_that_is_repeated_more_often_than_it_was_said_is_a_loop(reference, hypothesis, language, found):
    loops = find_loops(align((reference, hypothesis, {"language": language})))
    if hypothesis.endswith("谢谢"):  # one letter that repeats itself
        assert [(one.phrase, one.num_times) for one in loops] == [("谢", 12)]
    else:
        assert [(one.phrase, one.num_times) for one in loops] == ([] if found is None else [found])


def test_substitutions_come_by_their_frequency():
    scored = align(("their house", "there house", {}), ("their dog", "there dog", {}), ("a cat", "a hat", {}))
    first, second = count_substitutions(scored)
    assert (first.reference, first.hypothesis, first.count) == ("their", "there", 2)
    assert (second.reference, second.hypothesis, second.count) == ("cat", "hat", 1)


def test_a_term_counts_as_recognized_if_all_its_words_are_right():
    scored = align(
        ("the vocal fold is swollen", "the vocal fold is swollen", {}),
        ("the Vocal Fold, again", "the vocal cold again", {}),
        ("声带肿胀", "声带中胀", {"language": "zh"}),
    )
    terms = recall_terms(scored, ["vocal fold", "声带", "肿胀", "larynx"], normalizer="auto")
    assert [(one.term, one.num_recognized, one.num_said) for one in terms] == [
        ("vocal fold", 1, 2),
        ("肿胀", 0, 1),
        ("声带", 1, 1),
    ]


def test_rare_words_are_those_in_most_pieces_and_never_of_unspaced_languages():
    reference = "a b c d e f g h i laryngoscopy, 12345678901234"
    scored = align((reference, "", {}), ("声带肿胀声带肿胀", "", {"language": "zh"}))
    assert find_rare_words(scored, len) == ["laryngoscopy"]
    assert find_rare_words(scored, lambda text: 2) == []
