"""Write timed text as subtitles: SubRip (.srt) and WebVTT (.vtt).

In both formats an empty line ends a cue, so a cue's text is written as one line here.
Sources: https://www.w3.org/TR/webvtt1/ sections 4.1 and 4.2.2. SubRip has no standard; the output is what its readers
agree on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """One subtitle: a text and when it is shown."""

    start_s: float
    end_s: float
    """At least ``start_s``. If equal, the end is written a millisecond later: readers drop cues without duration."""
    text: str


def write_srt(cues: Iterable[Cue]) -> str:
    """Format cues as SubRip: numbered from 1, times with a comma; the format has no markup, so nothing is escaped."""
    return "".join(
        f"{number}\n{_times(cue, ',')}\n{text}\n\n" for number, (cue, text) in enumerate(_shown(cues), start=1)
    )


def write_vtt(cues: Iterable[Cue]) -> str:
    """Format cues as WebVTT: times with a dot; characters of markup and arrows are escaped."""
    blocks = (f"\n{_times(cue, '.')}\n{_escape(text)}\n" for cue, text in _shown(cues))
    return "WEBVTT\n" + "".join(blocks)


def one_line(text: str) -> str:
    """Return a cue's text as one line: lines joined by a space, without control characters, stripped."""
    joined = " ".join(text.splitlines())
    return "".join(letter for letter in joined if letter == "\t" or not _is_control(letter)).strip()


def _shown(cues: Iterable[Cue]) -> Iterator[tuple[Cue, str]]:
    """Skip cues without text: readers would end the previous cue there."""
    for cue in cues:
        text = one_line(cue.text)
        if text:
            yield cue, text


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _is_control(letter: str) -> bool:
    """Whether a character is C0, delete or C1."""
    return letter < " " or "\x7f" <= letter <= "\x9f"


def _times(cue: Cue, mark: str) -> str:
    """Format a cue's times, at least a millisecond apart: in WebVTT the end must be greater than the start."""
    start_ms = round(cue.start_s * 1000)
    end_ms = max(round(cue.end_s * 1000), start_ms + 1)
    return f"{_time(start_ms, mark)} --> {_time(end_ms, mark)}"


def _time(total_ms: int, mark: str) -> str:
    """Format hours, minutes, seconds and milliseconds as in ``00:01:02,500``; hours may have more than two digits."""
    minutes, ms = divmod(total_ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{mark}{ms % 1000:03}"
