import pytest
from report_corpus import make_clean_corpus, make_prepared, make_utterance

from sottovoce.report.corpus.contents import Report
from sottovoce.report.corpus.findings import find_all
from sottovoce.schema import Reject


def warn(utterances, **fields):
    """Return the sentences by name; no name occurs twice."""
    warnings = find_all(make_prepared(utterances, **fields)).warnings
    sentences = {warning.name: warning.sentence for warning in warnings}
    assert len(sentences) == len(warnings)
    return sentences


def test_clean_data_warns_of_nothing():
    assert warn(make_clean_corpus()) == {}


def test_speakers_in_training_and_test_are_a_warning_that_names_them():
    added = make_utterance("x", text="something new", speaker="speaker 5", corpus="clean")
    sentences = warn([*make_clean_corpus(), added])
    assert list(sentences) == ["speaker_leakage"]
    assert sentences["speaker_leakage"].startswith("1 speaker is in training and also in validation or test")
    assert "(speaker 5)" in sentences["speaker_leakage"]


def test_many_speakers_are_named_in_part():
    leaks = [make_utterance(f"x{i}", text=f"new {i}", speaker=f"speaker {i}", split="test") for i in range(4)]
    sentence = warn([*(u.model_copy(update={"corpus": None}) for u in make_clean_corpus()), *leaks])["speaker_leakage"]
    assert "4 speakers are" in sentence
    assert "(speaker 0, speaker 1, speaker 2, and 1 more)" in sentence


def test_a_sound_in_two_splits_is_a_warning_that_names_both_ids():
    clean = make_clean_corpus()
    copy = clean[0].model_copy(
        update={"id": "copy", "split": "test", "speaker": None, "text": "Another text entirely."}
    )
    sentences = warn([*clean, copy], digests={"copy": "digest of clean 0"})
    assert "(clean 0 = copy)" in sentences["sound_leakage"]
    assert "(clean 0 = copy)" in sentences["contradicting_texts"]
    assert set(sentences) == {"sound_leakage", "contradicting_texts", "repeated_sounds"}


def test_only_leaked_texts_are_named():
    texts = [
        make_utterance("a", text="aaa is common"),
        make_utterance("b", text="aaa is common", split="validation"),
        make_utterance("c", text="by one person " + "x" * 80, speaker="anna"),
        make_utterance("d", text="by one person " + "x" * 80, speaker="anna", split="test"),
    ]
    sentence = warn(texts)["text_leakage"]
    assert sentence.startswith("1 text is said by the same speaker")
    assert "by one person" in sentence
    assert "…" in sentence
    assert "common" not in sentence


def test_damaged_texts_foreign_letters_and_odd_rates_are_warnings():
    added = [
        make_utterance("a", text="caf\ufffd", corpus="clean"),
        make_utterance("b", text="tw\u043e", corpus="clean"),
        make_utterance("c", text="word " * 99, corpus="clean"),
    ]
    sentences = warn([*make_clean_corpus(), *added])
    assert set(sentences) == {"damaged_text", "foreign_letters", "implausible_rate"}
    assert sentences["damaged_text"].startswith("1 utterance has damaged")
    assert sentences["implausible_rate"].startswith("1 utterance is spoken implausibly fast or slow (c):")


def test_an_empty_corpus_and_an_empty_split_are_warnings():
    assert list(warn([])) == ["no_utterances"]
    sentences = warn([make_utterance("a")])
    assert list(sentences) == ["empty_split"]
    assert "validation or test" in sentences["empty_split"]


def test_rows_are_utterances_and_rejects_and_the_report_survives_json():
    rejects = [Reject(id="r", audio="x", reason="silent", detail="-90 dBFS")]
    report = find_all(make_prepared([*make_clean_corpus(), make_utterance("silence", text="")], rejects=rejects))
    assert (report.num_rows, report.num_utterances, report.num_rejects) == (32, 31, 1)
    assert report.reject_fraction == pytest.approx(1 / 32)
    assert report.hours == pytest.approx((30 * 2.95 + 2) / 3600)
    assert report.num_without_speech == 1
    assert sum(report.duration.counts) == 31
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_the_report_does_not_depend_on_the_order_of_equal_amounts():
    utterances = make_clean_corpus()
    report = find_all(make_prepared(utterances))
    again = find_all(make_prepared(utterances[::-1]))
    for one, other in ((report.speakers.ranking, again.speakers.ranking), (report.corpora, again.corpora)):
        assert [amount.name for amount in one.biggest] == [amount.name for amount in other.biggest]
    assert report.duration.counts == again.duration.counts
