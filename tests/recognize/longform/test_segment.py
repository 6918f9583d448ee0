import pytest

from sottovoce.recognize.longform.segment import Segment, Transcript, deltas, join_segments


def segment(text: str, *, language: str = "en", start_s: float = 0.0, end_s: float = 1.0) -> Segment:
    return Segment(
        seek_s=0.0, start_s=start_s, end_s=end_s, text=text, token_ids=(), language=language, temperature=0.0,
        avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("language", "texts", "joined"),
    [
        ("en", [], ""),
        ("en", [" Hello.", " World."], "Hello. World."),
        ("en", ["Hello. ", "World."], "Hello. World."),
        ("en", [" ", " a", "", "  ", "b"], "a b"),
        ("zh", ["你好。", "世界。"], "你好。世界。"),
        ("zh", [" Hello.", " World."], "Hello. World."),
    ],
)
def test_a_single_space_joins_segments_but_not_where_the_language_has_none(language, texts, joined):
    segments = [segment(text, language=language) for text in texts]
    assert join_segments(segments) == joined
    assert Transcript(duration_s=1.0, language=language, segments=tuple(segments)).text == joined


def test_deltas_are_given_as_segments_come_and_add_up_to_the_text():
    segments = [segment(" one"), segment(""), segment(" two "), segment("three")]
    given = deltas(iter(segments))
    assert [next(given), next(given), next(given)] == ["one", "", " two"]
    assert "".join(["one", "", " two", *given]) == join_segments(segments) == "one two three"
