"""The records that stages exchange, and the constants of Whisper's audio.

Shapes: S samples, M mel bins, F frames, T tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import not_
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

SAMPLING_RATE = 16_000  # Hz, the only rate Whisper reads
HOP_LENGTH = 160  # samples between frames: 10 ms
FRAMES_PER_SECOND = SAMPLING_RATE // HOP_LENGTH  # 100
POSITIONS_PER_SECOND = FRAMES_PER_SECOND // 2  # 50: the encoder's second convolution has stride 2
MAX_CONTEXT_S = 30.0  # s, the longest audio context of any Whisper
MAX_DURATION_S = 7200.0  # s, the longest recording that is decoded unless a caller sets another limit: longer than
# nearly any meeting or lecture, and 0.23 GB as int16 or 0.46 GB as float32, so one request cannot fill the memory
MAX_LABEL_TOKENS = 448  # the decoder's positions, prefix and end token included

Waveform: TypeAlias = NDArray[np.float32]
"""(S,) float32 in [-1, 1], mono, 16 000 Hz."""

Pcm: TypeAlias = NDArray[np.int16]
"""(S,) int16, mono, 16 000 Hz: the form in which processes exchange audio."""

LogMel: TypeAlias = NDArray[np.float32]
"""(M, F) float32, one frame per 10 ms."""

NO_COLUMNS: Final[Mapping[str, str]] = {}
"""The further columns of most rows and utterances: one object for all of them, which nobody changes."""

Split: TypeAlias = Literal["train", "validation", "test"]
Task: TypeAlias = Literal["transcribe", "translate"]

RejectReason: TypeAlias = Literal[
    "invalid_row",  # the row itself cannot be read: missing field, wrong type
    "wrong_encoding",  # its text is not UTF-8
    "unknown_language",
    "duplicate_id",
    "missing_file",
    "unreadable",
    "empty",
    "non_finite",
    "silent",
    "too_short",
    "too_long",
    "missing_text",
    "implausible_text",  # of a teacher: it repeats itself or is unlikely, at every temperature
    "label_too_long",  # more than 448 tokens with prefix and end token
]

WarningKind: TypeAlias = Literal[
    "low_bit_depth",  # fewer than 16 bits a sample
    "unusual_rate",  # above 48 000 or below 8 000 Hz
    "many_channels",  # more than two, averaged to one
    "clipped",
    "duration_differs",  # from the declared one
]


class Record(BaseModel):
    """A frozen row of a JSONL file."""

    # A loss may be NaN. It is written as NaN and read back; written as null, the record would not validate.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants")


class Utterance(Record):
    """One line of a manifest: where the audio is, and its reference transcript."""

    id: str
    audio: str
    """The recording: a path, absolute or relative to the manifest's folder; a URI such as s3://...; or a part of a
    file, such as ``shard.tar#bytes=1536-48211`` or ``train.parquet#row=17``."""
    start_s: float = Field(default=0.0, ge=0.0)
    duration_s: float = Field(gt=0.0)
    text: str
    """The transcript, cased and punctuated; empty for a recording without speech."""
    language: str = "en"
    task: Task = "transcribe"
    """translate if the text is an English translation of the speech."""
    speaker: str | None = None
    recording: str | None = None
    """The longer recording (a call, a chapter) that this is a piece of; its pieces are ordered by id."""
    corpus: str | None = None
    """Name of its corpus, which corpus weights and scores refer to."""
    split: Split = "train"
    columns: Mapping[str, str] = Field(default_factory=lambda: NO_COLUMNS, exclude_if=not_)
    """What the corpus says of it beside these fields, by name, in the columns that prepare was asked to keep; not
    written where there is nothing."""


class Reject(Record):
    """One input row that did not become an utterance, and why."""

    id: str
    audio: str
    reason: RejectReason
    detail: str
    """What is wrong, with the value."""


class RowWarning(Record):
    """Something unusual about a row that was kept, and how it was handled."""

    id: str
    audio: str
    kind: WarningKind
    detail: str
    """What was found, with the value."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training example: an utterance, or several of one speaker or recording joined."""

    utterances: tuple[Utterance, ...]
    """At least one, in the order of the audio; all of one language and task."""
    previous_text: str | None = None
    """The transcript just before it in the same recording, if known."""

    @property
    def id(self) -> str:
        """The first utterance's id; it is unique, since no utterance is in two examples."""
        return self.utterances[0].id

    @property
    def duration_s(self) -> float:
        """Seconds of all utterances together."""
        return sum(utterance.duration_s for utterance in self.utterances)


@dataclass(frozen=True, kw_only=True, eq=False)
class PcmBatch:
    """One microbatch of a training step: the examples of one forward and backward pass on a worker."""

    step: int
    """Index of the step in the run, from 0."""
    microbatch: int = 0
    """Index of the microbatch in the step, from 0."""
    epoch: int
    examples: tuple[Example, ...]
    recordings: tuple[tuple[Pcm, ...], ...]
    """For each example, the audio of each of its utterances; empty if it could not be decoded."""
    rejects: tuple[Reject, ...]
    """The recordings that could not be decoded, with reasons."""


@dataclass(frozen=True)
class WordTime:
    """A word and when it was said."""

    text: str
    """With its punctuation, stripped."""
    start_s: float
    """Seconds from the window's start."""
    end_s: float
    """At least ``start_s``, and within the window."""
    probability: float
    """Mean probability of its tokens among the text tokens, in [0, 1]."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a transcript and its log-probability."""

    text: str
    """Decoded by itself; a part of a character decodes to U+FFFD."""
    logprob: float
    """Natural logarithm of its probability."""
    utf8: bytes
    """Its bytes."""


@dataclass(frozen=True)
class WindowSegment:
    """A timed piece of a window's transcript."""

    start_s: float
    """Seconds from the window's start."""
    end_s: float
    text: str
    """As decoded, with a leading space if the model generated one."""
    token_ids: tuple[int, ...]
    """Timestamp tokens included."""
    words: tuple[WordTime, ...] = ()
    """In order and within the segment; empty unless requested."""
    token_logprobs: tuple[TokenLogprob, ...] = ()
    """Of its text tokens, in order; empty unless requested."""
    written_s: tuple[float, float] | None = None
    """The times of its timestamp tokens, if word times have replaced them in ``start_s`` and ``end_s``."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """The options of decoding one window; every window in a batch has its own."""

    language: str | None = "en"
    """ISO 639-1 code, or None to detect the language."""
    task: Task = "transcribe"
    timestamps: bool = False
    """Whether the model may generate timestamp tokens."""
    word_timestamps: bool = False
    """Whether to time each word by the model's cross-attention."""
    token_logprobs: bool = False
    """Whether to return each token's log-probability."""
    prompt: str = ""
    """Text that precedes the transcript, for names, spellings and style. Only its last tokens are used."""
    previous_ids: tuple[int, ...] = ()
    """Tokens of the transcript before this window; they follow ``prompt``, and only the last ones are used."""
    temperatures: tuple[float, ...] = (0.0,)
    """Tried in turn until the text is plausible; at 0 decoding is greedy, above 0 tokens are sampled."""
    compression_ratio_threshold: float | None = 2.4
    """A text with a higher ratio repeats itself, and the next temperature is tried."""
    logprob_threshold: float | None = -1.0
    """A text with a lower mean log-probability is not trusted, and the next temperature is tried."""
    no_speech_threshold: float | None = 0.6
    """A window with a higher no-speech probability and a text below ``logprob_threshold`` is silence."""
    best_of: int = 1
    """Texts sampled at a temperature above 0; the most probable one is kept."""
    beam_size: int = 1
    """Hypotheses of beam search at temperature 0."""
    patience: float = 1.0
    """Beam search ends after this many finished hypotheses, in multiples of ``beam_size``."""
    length_penalty: float | None = None
    """Exponent of Google's length normalization; divide by the length when None."""
    seed: int = 0
    """Seed of sampling above temperature 0."""
    max_new_tokens: int = 224
    """Tokens after the prefix; prefix and new tokens together stay within 448."""


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """A recognizer's result for one window."""

    text: str
    """Decoded text without special tokens, stripped."""
    token_ids: tuple[int, ...]
    """(T,) tokens after the prefix, end token excluded."""
    language: str
    """The requested or detected language, ISO 639-1."""
    language_probability: float | None = None
    """Its probability among all languages, if it was detected."""
    avg_logprob: float
    """Mean natural-log probability of the chosen tokens, end token included."""
    no_speech_prob: float
    """Probability of ``<|nospeech|>`` at the first position, in [0, 1]."""
    temperature: float = 0.0
    """The temperature that this text was decoded at."""
    compression_ratio: float = 0.0
    """UTF-8 size of the text over its zlib-compressed size."""
    segments: tuple[WindowSegment, ...] = ()
    """In order; one for the whole window without timestamps; empty without text."""
    heard_s: float | None = None
    """How far the window is transcribed for certain, where the next window starts; None for all of it."""
    words: tuple[WordTime, ...] = ()
    """The words of all segments, in order; empty unless requested."""
    token_logprobs: tuple[TokenLogprob, ...] = ()
    """Of all text tokens, in order; empty unless requested. Those of an unfinished rest are in no segment."""
