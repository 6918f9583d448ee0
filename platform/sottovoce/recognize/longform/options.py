"""Settings of transcribing a recording: those of every window, and those of the long-form algorithms."""

from typing import Literal, TypedDict

from pydantic import Field

from sottovoce.audio.voice_activity import USUAL_THRESHOLD
from sottovoce.config import Config
from sottovoce.schema import DecodeOptions, Task

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Those of openai-whisper's command line: ``temperature`` 0 and ``temperature_increment_on_fallback`` 0.2."""

TRANSCRIBE_OPTIONS = DecodeOptions(language=None, timestamps=True, temperatures=FALLBACK_TEMPERATURES)
"""The defaults of ``Recognizer.transcribe``."""


class Decoding(TypedDict, total=False):
    """Keywords of ``Recognizer.transcribe``; each is the field of ``DecodeOptions`` of that name."""

    language: str | None
    """ISO 639-1 code; detected if it is not given."""
    task: Task
    """transcribe, or translate into English."""
    prompt: str
    """Text before the transcript, for names, spellings and style."""
    timestamps: bool
    """Divide windows into segments at the model's timestamps. Without them a window is one segment, or one for each
    sentence if words are timed."""
    word_timestamps: bool
    """Compute the time of each word."""
    token_logprobs: bool
    """Return the log-probability of each token."""
    temperatures: tuple[float, ...]
    """Tried in turn until a window's text is plausible."""
    no_speech_threshold: float | None
    """Above it a window is silence if its text is unlikely, too."""
    best_of: int
    """Texts sampled at a temperature above 0, of which the likeliest is kept."""
    beam_size: int
    """Texts kept while searching at temperature 0."""


class LongFormOptions(Config):
    """Settings of the two algorithms."""

    algorithm: Literal["chunked", "sequential"] = "chunked"
    """chunked cuts in pauses and decodes windows side by side, so that a long recording takes the time of its slowest
    windows. sequential decodes windows one after the other, each conditioned on the text before."""
    window_s: float | None = Field(default=None, ge=1.0)
    """Longest window in seconds, at least 1, because shorter ones cut most words. None takes the model's longest
    context, or 0.6 of it for a model with trimmed contexts. Never longer than the context."""
    condition_on_previous_text: bool = True
    """Of sequential: condition each window on the text of those before, unless that text was sampled."""
    threshold: float = Field(default=USUAL_THRESHOLD, ge=0.0, le=1.0)
    """Probability of speech above which a frame counts as speech."""
    skip_without_voice: bool = True
    """Do not decode a window, or a recording that fits one, without detected speech: models invent words for noise.
    False decodes everything but silence, as openai-whisper does."""
    prefix_padding_s: float = Field(default=0.3, ge=0.0)
    """Seconds kept before speech. It also applies to sequential if the model has trimmed contexts."""
    min_silence_s: float = Field(default=0.2, ge=0.0)
    """Seconds of silence that end speech in chunked, and that are kept after speech; see ``prefix_padding_s``."""
    always_find_speech: bool = False
    """Of chunked: cut a recording even if it fits one window. Otherwise it is decoded whole if it has speech."""
