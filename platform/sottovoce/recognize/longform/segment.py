"""The transcript of a recording in timed segments, and the rule that joins their texts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sottovoce.schema import TokenLogprob, WordTime
from sottovoce.text.normalize import LANGUAGES_WITHOUT_SPACES


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A timed part of a transcript; times in seconds since the recording's beginning."""

    seek_s: float
    """Start of the window it was decoded in."""
    start_s: float
    end_s: float
    text: str
    """As decoded, with a leading space if the model generated one."""
    token_ids: tuple[int, ...]
    """Timestamp tokens included; their times count from ``seek_s``."""
    language: str
    """ISO 639-1."""
    language_probability: float | None = None
    """None if the language was given."""
    temperature: float
    avg_logprob: float
    """Of the whole window, like the two fields below."""
    compression_ratio: float
    no_speech_prob: float
    words: tuple[WordTime, ...] = ()
    """In order, if they were requested."""
    token_logprobs: tuple[TokenLogprob, ...] = ()
    """Of the text tokens in order, if they were requested."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The transcript of one recording."""

    duration_s: float
    language: str
    """ISO 639-1: the requested one, or the one detected in the first window with text; unreliable without text."""
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The text of all segments; see ``join_segments``."""
        return join_segments(self.segments)


def join_segments(segments: Iterable[Segment]) -> str:
    """Join the texts of segments.

    A single space separates two segments. In a language written without spaces it does so only if the model generated
    one, as in a translation.
    """
    return "".join(deltas(segments))


def deltas(segments: Iterable[Segment]) -> Iterator[str]:
    """Yield what each segment adds to the transcript; joined, they equal ``join_segments``.

    A delta ends with the last letter of its segment, so that it can be sent before the next segment is known.
    """
    has_text = False
    for segment in segments:
        spoken = segment.text.strip()
        is_apart = segment.text[:1].isspace() or segment.language not in LANGUAGES_WITHOUT_SPACES
        space = " " if has_text and spoken and is_apart else ""
        has_text = has_text or bool(spoken)
        yield space + spoken
