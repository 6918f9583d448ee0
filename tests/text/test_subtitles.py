"""Subtitles of any text are read back by the readers people have."""

import html

import pytest
import srt
import webvtt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sottovoce.text.subtitles import Cue, one_line, write_srt, write_vtt

NASTY = [
    "-->",
    "1\n00:00:00,000 --> 00:00:01,000\nx",
    "\n\n",
    "<b>",
    "</i>",
    "&amp;",
    "&",
    "<",
    "{\\an8}",
    "WEBVTT",
    "NOTE",
]
NASTY += [
    "\r\n",
    "\u2028",
    "\x85",
    "\x00",
    "\x0b",
    "7",
    "00:01 --> 00:02",
    "\ufeff",
    "STYLE",
    "العربية",
    "日本語",
    "🎉",
    "\u200b",
]
texts = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=12)), max_size=5).map("".join)
seconds = st.floats(min_value=0.0, max_value=400_000.0)  # a hundred hours and more
cues = st.builds(lambda start, length, text: Cue(start, start + length, text), seconds, st.floats(0.0, 30.0), texts)
transcripts = st.lists(cues, max_size=6)


def with_examples(num_examples: int):
    return settings(max_examples=num_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@with_examples(50)
@given(transcripts)
def test_srt_and_vtt_of_any_transcript_round_trip(written):
    check_round_trip(written)


@pytest.mark.slow
@with_examples(1000)
@given(transcripts)
def test_srt_and_vtt_of_a_thousand_transcripts_round_trip(written):
    check_round_trip(written)


def check_round_trip(written: list[Cue]) -> None:
    shown = [
        (ms(cue.start_s), max(ms(cue.end_s), ms(cue.start_s) + 1), one_line(cue.text))
        for cue in written
        if one_line(cue.text)
    ]
    assert [
        (ms(line.start.total_seconds()), ms(line.end.total_seconds()), line.content)
        for line in srt.parse(write_srt(written))
    ] == shown
    assert [
        (vtt_ms(caption.start), vtt_ms(caption.end), html.unescape(caption.raw_text))
        for caption in webvtt.from_string(write_vtt(written)).captions
    ] == shown


def ms(time_s: float) -> int:
    return round(time_s * 1000)


def vtt_ms(time: str) -> int:
    hours, minutes, rest = time.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000 + ms(float(rest))


@pytest.mark.parametrize("text", ["", " \n ", "\x00"])
def test_a_cue_without_text_is_left_out(text):
    assert write_srt([Cue(0.0, 1.0, text)]) == ""
    assert write_vtt([Cue(0.0, 1.0, text)]) == "WEBVTT\n"


@pytest.mark.parametrize("length_s", [0.0, 0.0001])
def test_a_cue_is_shown_for_a_millisecond_at_least(length_s):
    written = [Cue(59.9996, 59.9996 + length_s, "one")]
    assert "00:01:00,000 --> 00:01:00,001" in write_srt(written)
    assert "00:01:00.000 --> 00:01:00.001" in write_vtt(written)


def test_times_and_numbers_are_written_as_players_expect_them():
    written = [Cue(0.0, 1.2345, " one"), Cue(3661.5, 3662.0, "a --> b & <c>")]
    assert write_srt(written) == (
        "1\n00:00:00,000 --> 00:00:01,234\none\n\n2\n01:01:01,500 --> 01:01:02,000\na --> b & <c>\n\n"
    )
    assert write_vtt(written) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\none\n\n01:01:01.500 --> 01:01:02.000\na --&gt; b &amp; &lt;c&gt;\n"
    )
