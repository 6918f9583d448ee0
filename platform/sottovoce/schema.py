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
    "invalid_row",  # the row itself cannot be read: missing field, wrong type, wrong text encoding
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


class Record(BaseModel):
    """A frozen row of a JSONL file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Utterance(Record):
    """One line of a manifest: where the audio is and what was said."""

    id: str
    audio: str
    """Path of the recording, absolute or relative to the manifest's folder."""
    start_s: float = Field(default=0.0, ge=0.0)
    duration_s: float = Field(gt=0.0)
    text: str
    """What was said, cased and punctuated; empty for a recording without speech."""
    language: str = "en"
    speaker: str | None = None
    split: Split = "train"


class Reject(Record):
    """One input row that did not become an utterance, and why."""

    id: str
    audio: str
    reason: RejectReason
    detail: str
    """What was wrong, with the value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PcmBatch:
    """What one training worker reads at one step."""

    step: int
    """Place in the run, from 0 on."""
    epoch: int
    recordings: tuple[Pcm, ...]
    """One for each utterance; no samples where it could not be decoded."""
    utterances: tuple[Utterance, ...]
    rejects: tuple[Reject, ...]
    """Why recordings have no samples."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What one window's decoding depends on; every window in a batch has its own."""

    language: str | None = "en"
    """ISO 639-1 code, or None to detect the language."""
    task: Task = "transcribe"
    timestamps: bool = False
    """Let the model write timestamp tokens."""
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
    avg_logprob: float
    """Mean natural-log probability of the chosen tokens, end token included."""
    no_speech_prob: float
    """Probability of ``<|nospeech|>`` at the first position, in [0, 1]."""
