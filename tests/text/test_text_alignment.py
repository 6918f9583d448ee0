import pytest

from sottovoce.text.alignment import AlignedSpan, align_words
from sottovoce.text.score import count_characters, count_words


def test_each_kind_of_error_is_a_span_of_its_own():
    assert align_words("the cat sat on the red mat", "the bat sat on red mat today") == (
        AlignedSpan("equal", ("the",), ("the",)),
        AlignedSpan("substitute", ("cat",), ("bat",)),
        AlignedSpan("equal", ("sat", "on"), ("sat", "on")),
        AlignedSpan("delete", ("the",), ()),
        AlignedSpan("equal", ("red", "mat"), ("red", "mat")),
        AlignedSpan("insert", (), ("today",)),
    )


def test_characters_are_aligned_where_no_spaces_stand_between_words():
    assert align_words("今日は雨", "今目は", by_character=True) == (
        AlignedSpan("equal", ("今",), ("今",)),
        AlignedSpan("substitute", ("日",), ("目",)),
        AlignedSpan("equal", ("は",), ("は",)),
        AlignedSpan("delete", ("雨",), ()),
    )


@pytest.mark.parametrize("by_character", [False, True])
def test_a_text_aligns_with_nothing(by_character: bool):
    assert align_words("", " ", by_character=by_character) == ()
    (missed,) = align_words("a b", "", by_character=by_character)
    (invented,) = align_words(" ", "a b", by_character=by_character)
    units = ("a", " ", "b") if by_character else ("a", "b")
    assert missed == AlignedSpan("delete", units, ())
    assert invented == AlignedSpan("insert", (), units)


PAIRS = [
    ("one two three", "one two three"),
    ("one two three four", "two three three fore five"),
    ("a\tb  c", " a c "),  # white space of any kind and length separates
    ("राम की किताब", "राम का कीताब"),
    ("שלום לכולם", "שלום לכם עולם"),
    ("", "thank you"),
    ("said", ""),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_errors_and_units_are_those_of_the_error_rates(pair: tuple[str, str]):
    reference, hypothesis = (" ".join(text.split()) for text in pair)
    for by_character, count in ((False, count_words), (True, count_characters)):
        spans = align_words(*pair, by_character=by_character)
        counted = [sum(span.num_errors for span in spans if span.kind == kind) for kind in KINDS]
        assert [*counted, sum(len(span.reference) for span in spans)] == count([(reference, hypothesis)])[0].tolist()
        separator = "" if by_character else " "
        assert separator.join(unit for span in spans for unit in span.reference) == reference
        assert separator.join(unit for span in spans for unit in span.hypothesis) == hypothesis


KINDS = ("substitute", "delete", "insert")
