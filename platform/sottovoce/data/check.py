"""The check every corpus row passes: read, decoded, measured, and then an utterance or a reject with its reason."""

from collections.abc import Callable
from pathlib import Path

from sottovoce.audio.decode import read_audio
from sottovoce.audio.silence import peak_dbfs
from sottovoce.data.corpus import CorpusRow
from sottovoce.errors import AudioError, AudioTooLongError, EmptyAudioError, NonFiniteAudioError
from sottovoce.schema import MAX_LABEL_TOKENS, SAMPLING_RATE, Reject, RejectReason, Utterance, Waveform


def check_row(
    row: CorpusRow,
    *,
    language: str,
    min_duration_s: float,
    max_duration_s: float,
    silence_dbfs: float,
    count_tokens: Callable[[str], int] | None,
) -> Utterance | Reject:
    """Decode a row's audio and decide whether it can be trained on; raises nothing on bad input.

    Args:
        row: from ``read_corpus``.
        language: of rows that name none.
        min_duration_s: shorter audio is rejected.
        max_duration_s: longer audio is rejected, after decoding no more than this.
        silence_dbfs: audio whose peak stays below is rejected.
        count_tokens: the length of a transcript's label with prefix and end token; unchecked when None.

    Returns:
        An utterance of the training split, or the reject.
    """
    text = (row.text or "").strip()
    waveform = _check_text(row, text, count_tokens) or _read(row, max_duration_s)
    if isinstance(waveform, Reject):
        return waveform
    duration_s, peak = len(waveform) / SAMPLING_RATE, peak_dbfs(waveform)
    if duration_s < min_duration_s:
        return _reject(row, "too_short", f"{duration_s:.3f} s, less than {min_duration_s:g} s")
    if peak < silence_dbfs:
        return _reject(row, "silent", f"its peak is {peak:.1f} dBFS, below {silence_dbfs:g}")
    return Utterance(
        id=row.id,
        audio=row.audio,
        start_s=row.start_s,
        duration_s=round(duration_s, 4),
        text=text,
        language=row.language or language,
        speaker=row.speaker,
    )


def reject_duplicate(row: CorpusRow) -> Reject:
    """Reject a row whose id an earlier row of the corpus bears."""
    return _reject(row, "duplicate_id", f"an earlier row bears the id {row.id!r}")


def _check_text(row: CorpusRow, text: str, count_tokens: Callable[[str], int] | None) -> Reject | None:
    """Reject what needs no decoding to be refused."""
    if row.fault is not None:
        return _reject(row, "invalid_row", row.fault)
    if not text:
        return _reject(row, "missing_text", "the transcript is missing or empty")
    num_tokens = count_tokens(text) if count_tokens else 0
    if num_tokens > MAX_LABEL_TOKENS:
        return _reject(row, "label_too_long", f"{num_tokens} tokens, more than {MAX_LABEL_TOKENS}")
    return None


def _read(row: CorpusRow, max_duration_s: float) -> Waveform | Reject:
    try:
        return read_audio(
            Path(row.audio), start_s=row.start_s, duration_s=row.duration_s, max_duration_s=max_duration_s
        )
    except FileNotFoundError:
        return _reject(row, "missing_file", f"there is no file {row.audio}")
    except AudioError as error:
        return _reject(row, reject_reason(error), str(error))


def reject_reason(error: AudioError) -> RejectReason:
    """Name why a recording cannot be used."""
    if isinstance(error, EmptyAudioError):
        return "empty"
    if isinstance(error, NonFiniteAudioError):
        return "non_finite"
    return "too_long" if isinstance(error, AudioTooLongError) else "unreadable"


def _reject(row: CorpusRow, reason: RejectReason, detail: str) -> Reject:
    return Reject(id=row.id, audio=row.audio, reason=reason, detail=detail)
