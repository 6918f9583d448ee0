"""A transcript of a recording of any length, in timed segments, and the one rule by which their texts are joined."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sottovoce.schema import TokenLogprob, WordTime
from sottovoce.text.normalize import LANGUAGES_WITHOUT_SPACES


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A timed piece of a transcript; times in seconds since the recording's beginning."""

    seek_s: float
    """Where the window it was heard in begins."""
    start_s: float
    end_s: float
    text: str
    """As decoded: a leading space where the model wrote one."""
    token_ids: tuple[int, ...]
    """Timestamp tokens included; they count from ``seek_s``."""
    language: str
    """ISO 639-1."""
    language_probability: float | None = None
    """Where the language was detected."""
    temperature: float
    avg_logprob: float
    """Of the whole window, as the three below."""
    compression_ratio: float
    no_speech_prob: float
    words: tuple[WordTime, ...] = ()
    """In order, where they were asked for."""
    token_logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens of text, in order, where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What was heard in one recording."""

    duration_s: float
    language: str
    """ISO 639-1: the one asked for, or the one detected in the first window with text; a guess where there is none."""
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """All segments' texts; see ``join_segments``."""
        return join_segments(self.segments)


def join_segments(segments: Iterable[Segment]) -> str:
    """Join the segments' texts to the transcript's.

    A single space stands between two segments; in a language written without spaces only where the model wrote one, as
    it does in a translation.
    """
    return "".join(deltas(segments))


def deltas(segments: Iterable[Segment]) -> Iterator[str]:
    """Give what each segment adds to the transcript; together they are ``join_segments`` exactly.

    A piece ends with its segment's last letter, so that it can be given out before the next segment is known.
    """
    has_text = False
    for segment in segments:
        spoken = segment.text.strip()
        is_apart = segment.text[:1].isspace() or segment.language not in LANGUAGES_WITHOUT_SPACES
        space = " " if has_text and spoken and is_apart else ""
        has_text = has_text or bool(spoken)
        yield space + spoken
