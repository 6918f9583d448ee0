"""Timed text as subtitles: SubRip (.srt) and WebVTT (.vtt).

Both formats end a cue at an empty line, and neither can hold one within a cue, so a cue's text is one line here.
Sources: https://www.w3.org/TR/webvtt1/ sections 4.1 and 4.2.2; SubRip has no standard, we write what its readers share.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """What is shown for a while."""

    start_s: float
    end_s: float
    """Not before ``start_s``. Where it is the same a millisecond later is written: readers drop what shows for none."""
    text: str


def write_srt(cues: Iterable[Cue]) -> str:
    """Write SubRip: numbered from 1, times with a comma; markup is no part of the format, so nothing is escaped."""
    return "".join(
        f"{number}\n{_times(cue, ',')}\n{text}\n\n" for number, (cue, text) in enumerate(_shown(cues), start=1)
    )


def write_vtt(cues: Iterable[Cue]) -> str:
    """Write WebVTT: times with a dot; what would be read as markup or as an arrow is escaped."""
    blocks = (f"\n{_times(cue, '.')}\n{_escape(text)}\n" for cue, text in _shown(cues))
    return "WEBVTT\n" + "".join(blocks)


def one_line(text: str) -> str:
    """Give a cue's text as it is written: lines joined by a space, no control characters, stripped."""
    joined = " ".join(text.splitlines())
    return "".join(letter for letter in joined if letter == "\t" or not _is_control(letter)).strip()


def _shown(cues: Iterable[Cue]) -> Iterator[tuple[Cue, str]]:
    """Leave out cues without text: readers take them for the end of the one before."""
    for cue in cues:
        text = one_line(cue.text)
        if text:
            yield cue, text


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _is_control(letter: str) -> bool:
    """Recognize C0, delete and C1; WebVTT's readers put U+FFFD in the place of the first of them."""
    return letter < " " or "\x7f" <= letter <= "\x9f"


def _times(cue: Cue, mark: str) -> str:
    """Write when a cue is shown, for a millisecond at least: WebVTT's end must be greater than its start."""
    start_ms = round(cue.start_s * 1000)
    end_ms = max(round(cue.end_s * 1000), start_ms + 1)
    return f"{_time(start_ms, mark)} --> {_time(end_ms, mark)}"


def _time(total_ms: int, mark: str) -> str:
    """Write hours, minutes, seconds and milliseconds, as in ``00:01:02,500``; hours grow beyond two digits."""
    minutes, ms = divmod(total_ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{mark}{ms % 1000:03}"
