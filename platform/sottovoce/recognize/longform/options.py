"""How a recording longer than one window is transcribed."""

from typing import Literal, TypedDict

from pydantic import Field

from sottovoce.config import Config
from sottovoce.schema import DecodeOptions, Task

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of openai-whisper's command line: what its ``temperature`` 0 and ``temperature_increment_on_fallback`` 0.2 give."""

TRANSCRIBE_OPTIONS = DecodeOptions(language=None, timestamps=True, temperatures=FALLBACK_TEMPERATURES)
"""How ``Recognizer.transcribe`` decodes where nothing else is asked for."""


class Decoding(TypedDict, total=False):
    """What a caller of ``Recognizer.transcribe`` may set; each is the field of ``DecodeOptions`` of that name."""

    language: str | None
    """ISO 639-1 code; detected where it is not given."""
    task: Task
    """transcribe, or translate into English."""
    prompt: str
    """Text that the transcript follows on from: names, spellings, style."""
    timestamps: bool
    """Divide windows into segments at the times the model writes; without, a window is one segment, or one for each
    sentence where words are timed."""
    word_timestamps: bool
    """Find when each word was said."""
    token_logprobs: bool
    """Give each token's log-probability."""
    temperatures: tuple[float, ...]
    """Tried in turn until a window's text is plausible."""
    no_speech_threshold: float | None
    """Above it a window whose text is not trusted either is silence."""
    best_of: int
    """Texts drawn at a temperature above 0, the likeliest of which is kept."""
    beam_size: int
    """Texts kept while searching at temperature 0."""


class LongFormOptions(Config):
    """Settings of the two algorithms."""

    algorithm: Literal["chunked", "sequential"] = "chunked"
    """chunked cuts where nobody speaks and decodes windows side by side, so a long recording is done in the time of
    its slowest windows; sequential decodes them one after the other, each knowing what was said before."""
    window_s: float | None = Field(default=None, ge=1.0)
    """Longest window, of a second at least: in less hardly a word is whole. Where None the model's longest context, or
    a little more than half of it where the model reads trimmed contexts. Never more than the context."""
    condition_on_previous_text: bool = True
    """Of sequential: each window follows on from the text of those before, unless that text was drawn."""
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of a voice above which somebody speaks."""
    skip_without_voice: bool = True
    """Do not decode a window, or a recording that fits one, in which no voice is found: models invent words for noise.
    False decodes all but silence, as openai-whisper does."""
    prefix_padding_s: float = Field(default=0.3, ge=0.0)
    """Seconds kept before speech; of sequential too where the model reads trimmed contexts."""
    min_silence_s: float = Field(default=0.2, ge=0.0)
    """Seconds of silence that end speech in chunked, and that are kept after speech; see ``prefix_padding_s``."""
    always_find_speech: bool = False
    """Of chunked: cut a recording too that fits one window, which is else decoded whole where a voice is in it."""
