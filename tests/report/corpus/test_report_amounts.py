import numpy as np
import pytest
from report_corpus import make_clean_corpus, make_utterance

from sottovoce.report.corpus.amounts import (
    build_histogram,
    count_rejects,
    count_warnings,
    find_speakers,
    rank,
    sum_splits,
)
from sottovoce.report.corpus.contents import MAX_EXAMPLES, MAX_LISTED
from sottovoce.schema import Reject, RowWarning


def test_hours_and_utterances_are_added_up_by_name_biggest_first():
    utterances = [
        make_utterance("a", language="de", duration_s=3.6),
        make_utterance("b", language="en", duration_s=7.2),
        make_utterance("c", language="en", duration_s=3.6),
    ]
    ranking = rank(utterances, lambda utterance: utterance.language)
    assert [(amount.name, amount.utterances) for amount in ranking.biggest] == [("en", 2), ("de", 1)]
    assert [amount.hours for amount in ranking.biggest] == pytest.approx([0.003, 0.001])
    assert (ranking.total, ranking.unnamed) == (2, 0)


def test_utterances_without_a_name_are_counted_apart():
    ranking = rank([make_utterance("a"), make_utterance("b", corpus="x")], lambda utterance: utterance.corpus)
    assert (ranking.total, ranking.unnamed) == (1, 1)


def test_a_long_ranking_is_capped_and_says_its_whole_length():
    utterances = [make_utterance(f"{i}", speaker=f"s{i}") for i in range(MAX_LISTED + 20)]
    ranking = rank(utterances, lambda utterance: utterance.speaker)
    assert (ranking.total, len(ranking.biggest)) == (MAX_LISTED + 20, MAX_LISTED)


def test_all_three_splits_are_named_also_when_empty():
    amounts = sum_splits([make_utterance("a", split="test")])
    assert [(amount.name, amount.utterances) for amount in amounts] == [("train", 0), ("validation", 0), ("test", 1)]


@pytest.mark.parametrize(
    ("high", "step"),
    [(30.0, 1.0), (29.5, 1.0), (15.0, 0.5), (7.2, 0.25), (0.7, 0.025), (0.0005, 0.001), (4000.0, 200.0)],
)
def test_bins_have_round_widths_and_contain_every_value(high, step):
    values = np.linspace(0.1 * high, high, 500)
    histogram = build_histogram(values, "s")
    assert np.diff(histogram.edges) == pytest.approx(step)
    assert histogram.edges[0] == 0.0
    assert len(histogram.counts) <= 30
    assert sum(histogram.counts) == 500
    assert histogram.num_above == 0
    assert histogram.median == pytest.approx(np.median(values))
    assert (histogram.low, histogram.high) == (pytest.approx(0.1 * high), high)


def test_values_above_the_limit_are_counted_and_do_not_squeeze_the_others():
    histogram = build_histogram([2.0] * 99 + [1000.0], "words/s", limit=7.0)
    assert histogram.edges[-1] < 8.0
    assert (sum(histogram.counts), histogram.num_above, histogram.high) == (99, 1, 1000.0)


def test_no_values_give_no_histogram_and_zeros_give_one_bin():
    assert build_histogram([], "s") is None
    histogram = build_histogram([0.0, 0.0], "s")
    assert histogram.counts[0] == 2


def test_speakers_of_training_who_are_tested_are_named():
    utterances = [
        make_utterance("a", speaker="anna"),
        make_utterance("b", speaker="anna", split="test"),
        make_utterance("c", speaker="ben"),
        make_utterance("d", speaker="carl", split="validation"),
        make_utterance("e", speaker="carl", split="test"),
        make_utterance("f", speaker="dora"),
        make_utterance("g", speaker="dora", split="validation"),
        make_utterance("h", speaker="dora", split="validation"),
    ]
    speakers = find_speakers(utterances)
    assert [speaker.name for speaker in speakers.leaked] == ["dora", "anna"]  # carl trains nothing
    assert speakers.num_leaked == 2
    assert (speakers.leaked[1].train, speakers.leaked[1].validation, speakers.leaked[1].test) == (1, 0, 1)


def test_clean_speakers_leak_nothing_and_the_biggest_has_its_share():
    speakers = find_speakers(make_clean_corpus())
    assert speakers.num_leaked == 0
    assert speakers.ranking.total == 6
    assert speakers.biggest_share == pytest.approx(speakers.ranking.biggest[0].hours / (30 * 2.95 / 3600))


def test_the_same_name_in_two_corpora_is_two_people():
    utterances = [
        make_utterance("a", speaker="1", corpus="x"),
        make_utterance("b", speaker="1", corpus="y", split="test"),
        make_utterance("c", speaker=None, corpus="y"),
    ]
    speakers = find_speakers(utterances)
    assert speakers.num_leaked == 0
    assert [amount.name for amount in speakers.ranking.biggest] == ["x: 1", "y: 1"]
    assert speakers.ranking.unnamed == 1


def test_a_corpus_without_speakers_has_an_empty_ranking():
    speakers = find_speakers([make_utterance("a")])
    assert (speakers.ranking.total, speakers.biggest_share, speakers.minutes) == (0, 0.0, None)


def test_rejects_and_warnings_are_counted_by_name_with_examples():
    rejects = [Reject(id=f"row {i}", audio="x", reason="silent", detail=f"detail {i}") for i in range(9)]
    rejects.append(Reject(id="odd", audio="x", reason="empty", detail="no samples"))
    silent, empty = count_rejects(rejects)
    assert (silent.name, silent.rows, len(silent.examples)) == ("silent", 9, MAX_EXAMPLES)
    assert (empty.name, empty.rows, empty.examples[0].id) == ("empty", 1, "odd")
    (clipped,) = count_warnings([RowWarning(id="a", audio="x", kind="clipped", detail="half of it")])
    assert (clipped.name, clipped.examples[0].detail) == ("clipped", "half of it")
