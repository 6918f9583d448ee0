from collections.abc import Callable
from pathlib import Path

import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.data.corpora.read import read_corpus
from sottovoce.data.corpora.subtitles import parse_cues
from sottovoce.errors import ManifestError

Place = Callable[[dict[str, bytes]], str]

SRT = (
    "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Good</i> morning,\r\neveryone.\r\n\r\n"
    "2\r\n00:01:02,5 --> 00:01:03,000\r\n{\\an8}Second\r\n"
)
VTT = """WEBVTT - made by hand

NOTE a comment

STYLE
::cue { color: white }

intro
00:00.250 --> 00:01.000 align:start position:0%
<v Anna>Ham &amp; eggs

01:00:01.000 --> 01:00:02.000

01:00:03.000 --> 01:00:04.000
- Last
"""


def test_cues_of_both_formats_are_read_without_markup() -> None:
    assert list(parse_cues(SRT)) == [(2, 1.0, 2.5, "Good morning, everyone."), (7, 62.5, 63.0, "Second")]
    assert [cue[1:] for cue in parse_cues(VTT)] == [
        (0.25, 1.0, "Ham & eggs"),
        (3601.0, 3602.0, ""),
        (3603.0, 3604.0, "- Last"),
    ]


def test_each_cue_is_a_part_of_its_recording(place: Place, encode: Callable[..., bytes]) -> None:
    location = place({"test/talk.wav": encode("WAV", duration_s=3.0), "test/talk.srt": SRT.encode()})
    first, second = read_corpus(location)
    assert (first.id, second.id) == ("test/talk.wav@000001.000", "test/talk.wav@000062.500")
    assert (first.text, first.start_s, first.duration_s) == ("Good morning, everyone.", 1.0, 1.5)
    assert {(row.recording, row.split, row.language) for row in (first, second)} == {("test/talk.wav", "test", None)}
    assert len(read_audio(first.audio, start_s=first.start_s, duration_s=first.duration_s)) == 24_000


def test_the_name_may_have_a_language_and_one_file_may_be_the_corpus(tmp_path: Path) -> None:
    for name in ("a.b.mp4", "a.b.de.vtt", "a.b.txt"):
        (tmp_path / name).write_text(VTT, encoding="utf-8")
    rows = read_corpus(tmp_path / "a.b.de.vtt")
    assert [(row.audio, row.language, row.fault) for row in rows] == 2 * [(str(tmp_path / "a.b.mp4"), "de", None)]


def test_a_cue_that_ends_before_it_starts_and_text_of_another_encoding_are_faults(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    lines = b"00:00:02,000 --> 00:00:01,000\nx\n\n00:00:03,000 --> 00:00:04,000\ncaf\xe9\n"
    (tmp_path / "a.srt").write_bytes(lines)
    first, second = read_corpus(tmp_path)
    assert "no later than it starts" in str(first.fault)
    assert second.fault_reason == "wrong_encoding"


@pytest.mark.parametrize(("recordings", "message"), [((), "no recording"), (("a.wav", "a.mp4"), "several recordings")])
def test_subtitles_need_one_recording_beside_them(tmp_path: Path, recordings: tuple[str, ...], message: str) -> None:
    for name in (*recordings, "a.srt"):
        (tmp_path / name).write_text(SRT, encoding="utf-8")
    (row,) = read_corpus(tmp_path)
    assert message in str(row.fault)


def test_a_folder_without_subtitles_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"no \.srt or \.vtt"):
        read_corpus(tmp_path, "subtitles")
