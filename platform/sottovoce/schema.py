"""The records that travel between stages, and the constants of Whisper's audio.

Shapes: S samples, M mel bins, F frames, T tokens.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

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
"""(S,) int16, mono, 16 000 Hz: how audio travels between processes."""

LogMel: TypeAlias = NDArray[np.float32]
"""(M, F) float32, one frame per 10 ms."""

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
    "label_too_long",  # more than 448 tokens with prefix and end token
]

WarningKind: TypeAlias = Literal[
    "low_bit_depth",  # fewer than 16 bits a sample
    "unusual_rate",  # above 48 000 or below 8 000 Hz
    "many_channels",  # more than two, averaged to one
    "clipped",
    "duration_differs",  # from what the row declares
]


class Record(BaseModel):
    """A frozen row of a JSONL file."""

    # A loss that is not a number is written as one, NaN, and read back: as null no record of its run could be read.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants")


class Utterance(Record):
    """One line of a manifest: where the audio is and what was said."""

    id: str
    audio: str
    """Where the recording is: a path, absolute or relative to the manifest's folder, a URI such as s3://..., or a part
    of a file, ``shard.tar#bytes=1536-48211`` or ``train.parquet#row=17``."""
    start_s: float = Field(default=0.0, ge=0.0)
    duration_s: float = Field(gt=0.0)
    text: str
    """What was said, cased and punctuated; empty for a recording without speech."""
    language: str = "en"
    task: Task = "transcribe"
    """translate where the text is English and the speech is not."""
    speaker: str | None = None
    recording: str | None = None
    """The longer recording (a call, a chapter) this is a piece of; its pieces follow in the order of their ids."""
    corpus: str | None = None
    """Name of the corpus it came from: what weights and scores refer to."""
    split: Split = "train"


class Reject(Record):
    """One input row that did not become an utterance, and why."""

    id: str
    audio: str
    reason: RejectReason
    detail: str
    """What was wrong, with the value."""


class RowWarning(Record):
    """Something unusual about a row that was kept, and what was done about it."""

    id: str
    audio: str
    kind: WarningKind
    detail: str
    """What was met, with the value."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """What the model hears at once in training: one utterance, or several of one speaker or recording joined."""

    utterances: tuple[Utterance, ...]
    """At least one, in the order they are heard; of one language and task."""
    previous_text: str | None = None
    """What was said just before in the same recording, if that is known."""

    @property
    def id(self) -> str:
        """The first utterance's id: no utterance is in two examples."""
        return self.utterances[0].id

    @property
    def duration_s(self) -> float:
        """Seconds of all utterances together."""
        return sum(utterance.duration_s for utterance in self.utterances)


@dataclass(frozen=True, kw_only=True, eq=False)
class PcmBatch:
    """One microbatch of one training step: what a worker puts through the model at once."""

    step: int
    """Place in the run, from 0 on."""
    microbatch: int = 0
    """Place in the step."""
    epoch: int
    examples: tuple[Example, ...]
    recordings: tuple[tuple[Pcm, ...], ...]
    """For each example one for each of its utterances; no samples where it could not be decoded."""
    rejects: tuple[Reject, ...]
    """Why recordings have no samples."""


@dataclass(frozen=True)
class WordTime:
    """A word and when it was said."""

    text: str
    """With its punctuation, stripped."""
    start_s: float
    """Since the window's beginning."""
    end_s: float
    """Not before ``start_s``, not beyond the window."""
    probability: float
    """Mean over its tokens, each among the tokens of text, in [0, 1]."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a transcript and how sure the model was of it."""

    text: str
    """Decoded by itself; a character of several tokens is U+FFFD in each."""
    logprob: float
    """Natural logarithm of its probability."""
    utf8: bytes
    """Its bytes."""


@dataclass(frozen=True)
class WindowSegment:
    """What was said between two times of a window."""

    start_s: float
    """Since the window's beginning."""
    end_s: float
    text: str
    """As decoded: a leading space where the model wrote one."""
    token_ids: tuple[int, ...]
    """Timestamp tokens included."""
    words: tuple[WordTime, ...] = ()
    """In order, where they were asked for; within the segment."""
    token_logprobs: tuple[TokenLogprob, ...] = ()
    """Of its tokens of text, in order, where they were asked for."""
    written_s: tuple[float, float] | None = None
    """``start_s`` and ``end_s`` as the model wrote them, where its words' times stand in their place."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What one window's decoding depends on; every window in a batch has its own."""

    language: str | None = "en"
    """ISO 639-1 code, or None to detect the language."""
    task: Task = "transcribe"
    timestamps: bool = False
    """Let the model write timestamp tokens."""
    word_timestamps: bool = False
    """Find when each word was said, from the model's cross-attention."""
    token_logprobs: bool = False
    """Give each token's log-probability."""
    prompt: str = ""
    """Text that the transcript follows on from: names, spellings, style. Only its end is read."""
    previous_ids: tuple[int, ...] = ()
    """Tokens written for the audio before this window; they follow ``prompt``, and only their end is read."""
    temperatures: tuple[float, ...] = (0.0,)
    """Tried in turn until the text is plausible; at 0 the likeliest token is taken, above it one is drawn."""
    compression_ratio_threshold: float | None = 2.4
    """A text that compresses better than this repeats itself: the next temperature is tried."""
    logprob_threshold: float | None = -1.0
    """A text less likely than this on average is not trusted: the next temperature is tried."""
    no_speech_threshold: float | None = 0.6
    """Above it a window whose text is not trusted either is silence."""
    best_of: int = 1
    """Texts drawn at a temperature above 0, the likeliest of which is kept."""
    beam_size: int = 1
    """Texts kept while searching at temperature 0."""
    patience: float = 1.0
    """Finished texts, in multiples of ``beam_size``, that end the search."""
    length_penalty: float | None = None
    """Exponent of Google's length normalization; plain length where None."""
    seed: int = 0
    """Of what is drawn above temperature 0."""
    max_new_tokens: int = 224
    """Tokens after the prefix; prefix and new tokens together stay within 448."""


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """What a recognizer made of one window."""

    text: str
    """Decoded text without special tokens, stripped."""
    token_ids: tuple[int, ...]
    """(T,) tokens after the prefix, end token excluded."""
    language: str
    """The given or the detected language, ISO 639-1."""
    language_probability: float | None = None
    """Among all languages, where it was detected."""
    avg_logprob: float
    """Mean natural-log probability of the chosen tokens, end token included."""
    no_speech_prob: float
    """Probability of ``<|nospeech|>`` at the first position, in [0, 1]."""
    temperature: float = 0.0
    """The one whose text this is."""
    compression_ratio: float = 0.0
    """UTF-8 bytes of the text over their zlib-compressed bytes."""
    segments: tuple[WindowSegment, ...] = ()
    """In order; the whole window as one where no times were written; none where there is no text."""
    heard_s: float | None = None
    """How far the window is transcribed for certain: where a next window begins. None: to its end."""
    words: tuple[WordTime, ...] = ()
    """All segments' words in order, where they were asked for."""
    token_logprobs: tuple[TokenLogprob, ...] = ()
    """Of all tokens of text in order, where they were asked for; those of an unfinished rest are in no segment."""
