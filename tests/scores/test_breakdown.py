"""Error rates by everything that is known of the utterances."""

import pytest
from scored_utterances import align

from sottovoce.scores.breakdown import MISSING, break_down, name_bucket, worst_speakers


def test_groups_have_counts_and_rates_by_the_headline_of_their_language():
    scored = align(
        ("a red house burns", "a red mouse burns", {"speaker": "a", "corpus": "x"}),
        ("they left", "they left", {"speaker": "b", "corpus": "x"}),
        ("你好世界", "你好世杰", {"speaker": "b", "corpus": "y", "language": "zh"}),
    )
    groups = {(one.kind, one.name): one for one in break_down(scored, normalizer="auto", columns={})}
    chinese = groups["language", "zh"]
    assert (chinese.headline, chinese.error_rate, chinese.num_errors, chinese.num_units) == ("cer", 0.25, 1, 4)
    english = groups["language", "en"]
    assert (english.headline, english.num_errors, english.num_units, english.num_utterances) == ("wer", 1, 6, 2)
    assert english.wer_low <= english.wer <= english.wer_high
    assert groups["speaker", "a"].error_rate == 0.25
    assert groups["corpus", "x"].num_utterances == 2


def test_what_all_share_is_left_out_unless_it_is_asked_for():
    scored = align(("one", "one", {}), ("two", "too", {}))
    assert break_down(scored, normalizer="auto", columns={}) == ()
    asked = break_down(scored, normalizer="auto", columns={"condition": {"0": "car"}, "language": {}})
    assert [(one.kind, one.name) for one in asked] == [
        ("condition", "car"),
        ("condition", MISSING),
        ("language", MISSING),
    ]


def test_buckets_are_in_the_order_of_their_values():
    durations = (31.0, 5.0, 1.0, 12.0)
    scored = align(*(("one", "one", {"duration_s": duration_s}) for duration_s in durations))
    groups = break_down(scored, normalizer="auto", columns={})
    assert [one.name for one in groups if one.kind == "duration"] == [
        "below 2 s",
        "5 to 10 s",
        "10 to 20 s",
        "from 30 s",
    ]


@pytest.mark.parametrize(
    ("value", "name"), [(None, MISSING), (-1.0, "below 0 dB"), (0.0, "0 to 10 dB"), (10.0, "from 10 dB")]
)
def test_a_lower_edge_belongs_to_its_bucket(value, name):
    assert name_bucket(value, (0.0, 10.0), "dB") == name


def test_the_worst_speakers_said_enough_to_be_judged():
    ten = "the cat sat near a warm fire and fell asleep"
    scored = align(
        *((ten, ten, {"speaker": "good"}) for _ in range(2)),
        *((ten, ten.replace("cat", "hat"), {"speaker": "bad"}) for _ in range(2)),
        ("cat", "hat", {"speaker": "brief"}),
    )
    groups = break_down(scored, normalizer="auto", columns={})
    assert [one.name for one in worst_speakers(groups)] == ["bad", "good"]
