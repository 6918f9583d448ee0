import pytest
from scored_utterances import make_scored

from sottovoce.report.errors.rows import build_row, list_choices, rank
from sottovoce.report.errors.sound import MAX_PAGE_SOUND_S, MAX_SOUND_S, plan_sounds


def test_neither_one_wrong_word_nor_a_long_text_with_few_errors_comes_first():
    long = " ".join(f"word{i}" for i in range(100))
    ranked = rank(
        [
            make_scored("right", "all is right", "all is right"),
            make_scored("one word", "yes", "no"),
            make_scored("few errors in a long text", long, "x y z " + long[18:]),
            make_scored("many errors", "the red fish swims up here", "a dead dish sinks down there"),
            make_scored("invented", "", "thank you for watching this"),
        ]
    )
    assert [one.utterance.id for one in ranked] == [
        "invented",
        "many errors",
        "one word",
        "few errors in a long text",
        "right",
    ]


def test_words_are_cut_into_pieces_and_substitutions_into_pairs():
    row = build_row(make_scored("a", "the cat sat on it well", "a dog sat it well now"), None, number=3)
    assert [(piece.kind, piece.reference, piece.hypothesis) for piece in row.pieces] == [
        ("substitute", "the", "a"),
        ("substitute", "cat", "dog"),
        ("equal", "sat", "sat"),
        ("delete", "on", ""),
        ("equal", "it well", "it well"),
        ("insert", "", "now"),
    ]
    assert (row.rank, row.unit, row.separator) == (3, "words", " ")
    assert row.counts == {"substitute": 2, "delete": 1, "insert": 1}


def test_a_mark_that_is_cut_from_its_letter_gets_a_circle_to_stand_on():
    row = build_row(make_scored("thai", "เป็น", "เปน", language="th"), None, number=1)
    assert row.unit == "characters"
    assert [(piece.kind, piece.reference) for piece in row.pieces] == [
        ("equal", "เป"),
        ("delete", "\u25cc็"),
        ("equal", "น"),
    ]


def test_a_space_that_is_missing_between_characters_can_be_seen():
    row = build_row(make_scored("zh", "good morning", "goodmorning", language="zh"), None, number=1)
    assert [(piece.kind, piece.reference) for piece in row.pieces][1] == ("delete", "\u2423")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "kinds"),
    [
        ("a b", "a b", {"right"}),
        ("a b", "a c", {"wrong", "substitute"}),
        ("a b", "", {"wrong", "delete", "missed"}),
        ("", "a b", {"wrong", "insert", "invented"}),
        ("", "", {"right"}),
    ],
)
def test_the_filter_by_kind_knows_what_went_wrong(reference: str, hypothesis: str, kinds: set[str]):
    assert set(build_row(make_scored("a", reference, hypothesis), None, number=1).kinds.split()) == kinds


def test_a_filter_offers_each_name_once_and_those_without_a_name_last():
    choices = list_choices(["zoe", None, "ann", "zoe"])
    assert choices.names == (("ann", 1), ("zoe", 2), ("(not named)", 1))
    assert choices.indices == (1, 2, 0, 1)


def test_a_page_holds_the_sounds_of_the_worst_until_it_is_full():
    hour = make_scored("hour", "a", "b", duration_s=3_600.0).utterance
    assert plan_sounds([hour])[0] == MAX_SOUND_S
    planned = plan_sounds([hour] * 30)
    assert sum(planned) == MAX_PAGE_SOUND_S
    assert planned[-1] == 0.0


def test_five_hundred_utterances_of_ten_seconds_all_have_their_sound():
    utterances = [make_scored("ten", "a", "b", duration_s=10.0).utterance] * 500
    assert all(plan_sounds(utterances))
