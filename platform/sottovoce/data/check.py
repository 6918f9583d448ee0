"""Check a row of a corpus: decode and measure its audio, and accept it as an utterance or reject it with a reason."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sottovoce.audio.decode import decode_audio_with_format, read_audio_with_format
from sottovoce.audio.silence import peak_dbfs
from sottovoce.audio.waveform import AudioFormat, to_pcm
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.errors import AudioError, AudioTooLongError, EmptyAudioError, NonFiniteAudioError
from sottovoce.schema import (
    MAX_LABEL_TOKENS,
    SAMPLING_RATE,
    Reject,
    RejectReason,
    RowWarning,
    Split,
    Task,
    Utterance,
    WarningKind,
    Waveform,
)
from sottovoce.text.clean import CleaningRule, clean_text
from sottovoce.text.languages import find_language

EmptyText = Literal["reject", "no_speech"]

_USUAL_BITS = 16
_MIN_USUAL_RATE, _MAX_USUAL_RATE = 8_000, 48_000  # Hz: telephone to studio
_MAX_USUAL_CHANNELS = 2
# The limits below are guesses, untested.
_FULL_SCALE = 0.999  # of 1.0: resampling lowers clipped peaks a little
_MAX_CLIPPED = 0.001  # of the samples; a healthy recording touches full scale in a few samples at most
_DURATION_TOLERANCE_S, _DURATION_TOLERANCE = 0.1, 0.01  # the larger of the two: metadata is often rounded


def find_warnings(
    waveform: Waveform, audio_format: AudioFormat, *, declared_s: float | None
) -> list[tuple[WarningKind, str]]:
    """Return what is unusual about a recording, and how it was handled.

    Args:
        waveform: (S,) decoded, resampled and averaged to one channel.
        audio_format: the format in the container.
        declared_s: duration that the row declares; a longer recording is cut there without a warning.
    """
    warnings: list[tuple[WarningKind, str]] = []
    if audio_format.bits is not None and audio_format.bits < _USUAL_BITS:
        warnings.append(("low_bit_depth", f"{audio_format.bits} bits a sample; used as it is"))
    if not _MIN_USUAL_RATE <= audio_format.sampling_rate <= _MAX_USUAL_RATE:
        warnings.append(("unusual_rate", f"{audio_format.sampling_rate} Hz; resampled to {SAMPLING_RATE} Hz"))
    if audio_format.num_channels > _MAX_USUAL_CHANNELS:
        warnings.append(("many_channels", f"{audio_format.num_channels} channels; averaged to one"))
    clipped = float(np.mean(np.abs(waveform) >= _FULL_SCALE))
    if clipped > _MAX_CLIPPED:
        warnings.append(("clipped", f"{clipped:.1%} of the samples are at full scale; used as it is"))
    missing_s = (declared_s or 0.0) - len(waveform) / SAMPLING_RATE
    if declared_s is not None and missing_s > max(_DURATION_TOLERANCE_S, _DURATION_TOLERANCE * declared_s):
        detail = f"declared {declared_s:.3f} s, but it ends after {declared_s - missing_s:.3f} s; used to its end"
        warnings.append(("duration_differs", detail))
    return warnings


@dataclass(frozen=True, kw_only=True)
class CheckRules:
    """Limits for rows, and defaults for what a row does not declare."""

    corpus: str
    """Name of the corpus, written into every utterance."""
    language: str
    """Default for rows that declare none."""
    languages: Mapping[str, str]
    """Codes of the languages that have a token, by code and by name."""
    task: Task
    """Default for rows that declare none."""
    cleaning: tuple[CleaningRule, ...]
    """Applied to every transcript, in this order."""
    empty_text: EmptyText
    """Whether a row with an empty text is rejected or accepted as a recording without speech."""
    min_duration_s: float
    """Shorter audio is rejected."""
    max_duration_s: float
    """Longer audio is rejected, except for the test split; no more than this is decoded."""
    max_test_duration_s: float
    """The same limit for the test split, and for rows that declare no split: they join it if they are too long for
    another one. Below ``max_duration_s`` it has no effect."""
    silence_dbfs: float
    """Audio with a lower peak is rejected, unless its text is empty too."""
    count_tokens: Callable[[str], int]
    """Returns the number of tokens of a transcript's label, with prefix and end token."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of checking one row."""

    outcome: Utterance | Reject
    warnings: tuple[RowWarning, ...] = ()
    """Warnings about an utterance; none about a reject."""
    digest: str | None = None
    """SHA-256 in hex of the int16 PCM of an utterance."""
    split: Split | None = None
    """The split that the corpus declares; None if it declares none."""

    def located(self, row_id: str, audio: str, *, split: Split | None) -> "Checked":
        """Fill in id, recording and default split, for a row whose position is known only after the check."""
        name = {"id": row_id, "audio": audio}
        return replace(
            self,
            split=self.split or split,
            outcome=self.outcome.model_copy(update=name),
            warnings=tuple(warning.model_copy(update=name) for warning in self.warnings),
        )


def check_row(row: CorpusRow, rules: CheckRules, *, data: bytes | None = None) -> Checked:
    """Decode a row's audio and decide whether it can be used for training; bad input raises no error.

    Args:
        row: from a corpus reader.
        rules: limits and defaults.
        data: the recording's bytes, if the reader has them; None to read ``row.audio``.

    Returns:
        An utterance with warnings and digest, its split still ``train``, or the reject.

    Raises:
        StorageError: the recording's storage does not answer, which is not the row's fault.
    """
    text = clean_text(row.text or "", rules.cleaning).strip()
    reject = _check_text(row, text, rules)
    if reject is not None:
        return reject
    recording = _read(row, rules, data)
    if isinstance(recording, Checked):
        return recording
    waveform, audio_format = recording
    return (
        _check_sound(row, text, waveform, rules)
        or _check_label(row, text, waveform, rules)
        or Checked(
            outcome=_to_utterance(row, text, waveform, rules),
            warnings=tuple(
                RowWarning(id=row.id, audio=row.audio, kind=kind, detail=detail)
                for kind, detail in find_warnings(waveform, audio_format, declared_s=row.duration_s)
            ),
            digest=hashlib.sha256(to_pcm(waveform).tobytes()).hexdigest(),
            split=row.split,
        )
    )


def reject_duplicate(row_id: str, audio: str) -> Checked:
    """Reject a row with the id of an earlier row of the corpus."""
    detail = f"an earlier row bears the id {row_id!r}"
    return Checked(outcome=Reject(id=row_id, audio=audio, reason="duplicate_id", detail=detail))


def reject_reason(error: AudioError) -> RejectReason:
    """Return the reason for which a recording cannot be used."""
    if isinstance(error, EmptyAudioError):
        return "empty"
    if isinstance(error, NonFiniteAudioError):
        return "non_finite"
    return "too_long" if isinstance(error, AudioTooLongError) else "unreadable"


def _check_text(row: CorpusRow, text: str, rules: CheckRules) -> Checked | None:
    """Return a reject if the row is unusable before any decoding; else None."""
    if row.fault is not None:
        return _reject(row, row.fault_reason, row.fault)
    if not text and (rules.empty_text == "reject" or row.text is None):
        return _reject(row, "missing_text", f"the transcript is {'missing' if row.text is None else 'empty'}")
    if row.language is not None and find_language(row.language, rules.languages) is None:
        detail = f"Whisper's tokenizer has no token for the language {row.language!r}; write an ISO 639-1 code"
        return _reject(row, "unknown_language", detail)
    return None


def _read(row: CorpusRow, rules: CheckRules, data: bytes | None) -> tuple[Waveform, AudioFormat] | Checked:
    limit_s = _limit_s(row, rules)
    try:
        if data is None:
            return read_audio_with_format(
                row.audio, start_s=row.start_s, duration_s=row.duration_s, max_duration_s=limit_s
            )
        return decode_audio_with_format(
            data, source=row.audio, start_s=row.start_s, duration_s=row.duration_s, max_duration_s=limit_s
        )
    except FileNotFoundError:
        return _reject(row, "missing_file", f"there is no file {row.audio}")
    except AudioTooLongError:
        return _reject(row, "too_long", _explain_length(row, limit_s))
    except AudioError as error:
        return _reject(row, reject_reason(error), str(error))


def _limit_s(row: CorpusRow, rules: CheckRules) -> float:
    """Return the longest audio that a row may have."""
    may_be_test = row.split in (None, "test")
    return max(rules.max_duration_s, rules.max_test_duration_s) if may_be_test else rules.max_duration_s


def _explain_length(row: CorpusRow, limit_s: float) -> str:
    """Say what to do about a recording that is too long."""
    for_training = "name the start_s, duration_s and text of its parts, or lay subtitles (.srt, .vtt) beside it"
    if row.split in (None, "test"):
        for_scoring = "raise prepare.max_test_duration_s to score on it whole"
    else:
        for_scoring = f"move it from {row.split} to the split test and raise prepare.max_test_duration_s to score on it"
    return f"it is longer than {limit_s:g} s; {for_training}; or {for_scoring}"


def _check_label(row: CorpusRow, text: str, waveform: Waveform, rules: CheckRules) -> Checked | None:
    """Reject a label that the decoder cannot hold; a recording longer than a window is never one label."""
    if len(waveform) > rules.max_duration_s * SAMPLING_RATE:
        return None
    num_tokens = rules.count_tokens(text)
    if num_tokens > MAX_LABEL_TOKENS:
        return _reject(row, "label_too_long", f"{num_tokens} tokens, more than {MAX_LABEL_TOKENS}")
    return None


def _check_sound(row: CorpusRow, text: str, waveform: Waveform, rules: CheckRules) -> Checked | None:
    duration_s, peak = len(waveform) / SAMPLING_RATE, peak_dbfs(waveform)
    if duration_s < rules.min_duration_s:
        return _reject(row, "too_short", f"{duration_s:.3f} s, less than {rules.min_duration_s:g} s")
    if text and peak < rules.silence_dbfs:
        return _reject(row, "silent", f"its peak is {peak:.1f} dBFS, below {rules.silence_dbfs:g}")
    return None


def _to_utterance(row: CorpusRow, text: str, waveform: Waveform, rules: CheckRules) -> Utterance:
    return Utterance(
        id=row.id,
        audio=row.audio,
        start_s=row.start_s,
        duration_s=len(waveform) / SAMPLING_RATE,
        text=text,
        language=find_language(row.language or rules.language, rules.languages) or rules.language,
        task=row.task or rules.task,
        speaker=row.speaker,
        recording=row.recording,
        corpus=rules.corpus,
        columns=row.columns,
    )


def _reject(row: CorpusRow, reason: RejectReason, detail: str) -> Checked:
    return Checked(outcome=Reject(id=row.id, audio=row.audio, reason=reason, detail=detail), split=row.split)
