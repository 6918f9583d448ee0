"""Convert a record of metadata to a row: the keys that corpora use, times, languages, splits."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from sottovoce.data.corpora.columns import further_columns
from sottovoce.data.corpora.files import CorpusFiles
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.schema import Split, Task
from sottovoce.text.languages import WHISPER_CODES, first_subtag

AUDIO_KEYS = ("audio", "file_name", "audio_filepath")
ID_KEYS = ("id",)
# If a corpus has several, the cased and punctuated text comes first: raw_... are of FLEURS and VoxPopuli.
TEXT_KEYS = ("text", "raw_transcription", "transcription", "sentence", "transcript", "raw_text", "normalized_text")
SPEAKER_KEYS = ("speaker", "speaker_id", "client_id")
RECORDING_KEYS = ("recording", "recording_id", "session", "session_id", "chapter_id")
LANGUAGE_KEYS = ("language", "lang", "source_lang", "locale")
TASK_KEYS = ("task", "taskname")
TIME_KEYS = ("start_s", "duration_s", "end_s")
_NEMO_TIME_KEYS = ("offset", "duration", "end")
KNOWN_KEYS: Final = frozenset(
    {*AUDIO_KEYS, *ID_KEYS, *TEXT_KEYS, *SPEAKER_KEYS, *RECORDING_KEYS, *LANGUAGE_KEYS, *TASK_KEYS, "target_lang"}
    | {*TIME_KEYS, *_NEMO_TIME_KEYS, "split"}
)
"""All keys that say something of an utterance."""

_BOM = "\ufeff"
_SPLITS: Final[Mapping[str, Split]] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_TASKS: Final[Mapping[str, Task]] = {
    "transcribe": "transcribe",
    "asr": "transcribe",
    "translate": "translate",
    "ast": "translate",
    "s2t_translation": "translate",
}


def parse_record(
    record: Mapping[str, object], *, location: str, folder: str, files: CorpusFiles, split: Split | None = None
) -> CorpusRow:
    """Convert a record to a row; an error in it becomes the row's ``fault``.

    Args:
        record: keys and values as written.
        location: of the record, ``metadata.csv:3``; its id if it names no audio.
        folder: the folder that its audio path is relative to, relative to the corpus.
        files: the corpus.
        split: of records that declare none.
    """
    try:
        name = read_text(record, AUDIO_KEYS)
        audio = files.resolve(name, folder) if name else ""
        audio.encode("utf-8")  # names of folders may have another encoding
    except (TypeError, ValueError) as error:
        return fault_row(error, location=location, row_id=_id_of(record) or location)
    if not audio:
        return fault_row(ValueError("names no audio file"), location=location, row_id=_id_of(record) or location)
    return parse_fields(record, location=location, row_id=files.id_of(audio), audio=audio, split=split)


def split_segments(record: Mapping[str, object]) -> Iterator[Mapping[str, object] | ValueError]:
    """Yield a record for each of the record's ``segments``, as speech recognizers write them; without any, itself.

    A segment has ``text`` and ``start`` and ``end``, or ``start_s`` and ``end_s``, in seconds; it may have its own
    ``speaker`` and further columns. Everything else is the record's.
    """
    segments = record.get("segments")
    if not isinstance(segments, list):
        yield record
        return
    own = (*TEXT_KEYS, *ID_KEYS, *TIME_KEYS, *_NEMO_TIME_KEYS, "segments")
    common = {key: value for key, value in record.items() if key not in own}
    recording = _first(record, (*RECORDING_KEYS, *ID_KEYS, *AUDIO_KEYS))
    for segment in segments:
        if isinstance(segment, dict):
            spoken = {key: segment[key] for key in segment if key in ("text", *SPEAKER_KEYS) or key not in KNOWN_KEYS}
            times = {f"{name}_s": segment.get(f"{name}_s", segment.get(name)) for name in ("start", "end")}
            yield {**common, "recording": recording, **spoken, **times}
        else:
            yield ValueError(f"has a segment that is {type(segment).__name__}, not an object with start, end and text")


def parse_fields(
    record: Mapping[str, object], *, location: str, row_id: str, audio: str, split: Split | None = None
) -> CorpusRow:
    """Convert a record with a known recording to a row; an error in it becomes the row's ``fault``.

    Args:
        record: keys and values as written.
        location: of the record, for the ``fault``.
        row_id: of a record without an id; start and task are added for pieces of one file. Empty if it is not known
            yet.
        audio: reference of the recording.
        split: of records that declare none.
    """
    try:
        return _fill(record, CorpusRow(id=row_id, audio=audio, split=split), given=read_text(record, ID_KEYS))
    except (TypeError, ValueError) as error:  # raised by the functions below; UnicodeError is a ValueError
        return fault_row(error, location=location, row_id=_id_of(record) or row_id, audio=audio)


def fault_row(error: TypeError | ValueError, *, location: str, row_id: str, audio: str = "") -> CorpusRow:
    """Return a row that stands for a record that cannot be read."""
    prefix, row_id, audio = f"{printable(location)}: " if location else "", printable(row_id), printable(audio)
    if isinstance(error, UnicodeError):
        fault = f"{prefix}{_explain_encoding(error)}"
        return CorpusRow(id=row_id, audio=audio, fault=fault, fault_reason="wrong_encoding")
    return CorpusRow(id=row_id, audio=audio, fault=f"{prefix}{error}")


def _explain_encoding(error: UnicodeError) -> str:
    """Return our own sentence about an encoding, or one in place of Python's."""
    if not isinstance(error, (UnicodeDecodeError, UnicodeEncodeError)):
        return str(error)
    where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
    return f"its text is not UTF-8{where}; save it as UTF-8"


def printable(name: str) -> str:
    r"""Return a file name that UTF-8 can encode: bytes of another encoding are written as ``\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_text(record: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    """Return the first non-empty value of these keys, as a string that UTF-8 can encode, without a byte order mark.

    Whoever made the record from files that begin with a mark may have copied it.

    Raises:
        TypeError: the value is neither a string nor an integer.
        ValueError: it has a NUL character.
        UnicodeEncodeError: it has bytes of another encoding, kept as surrogates.
    """
    value = _first(record, keys)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):  # speakers and ids are often numbers
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text belongs")
    value.encode("utf-8")
    if "\0" in value:
        raise ValueError("text holds a NUL character")
    return value.removeprefix(_BOM)


def language_code(language: str | None) -> str | None:
    """Return Whisper's code for the language of a locale: ``zh`` for cmn_hans_cn, ``pt`` for pt-BR."""
    if language is None:
        return None
    code = first_subtag(language)
    return WHISPER_CODES.get(code, code)


def split_of_folder(folder: str) -> Split | None:
    """Return the split that a folder such as ``data/train`` declares; a part of the path must be the split's name."""
    return next((_SPLITS[part] for part in folder.lower().split("/") if part in _SPLITS), None)


def split_of_name(name: str) -> Split | None:
    """Return the split that a name declares, ``train-clean-100`` or ``data/test-00000-of-00002.parquet``.

    Any word of the name may be the split's name; the file's own name takes precedence over its folders.
    """
    for part in reversed(name.lower().split("/")):
        split = next((_SPLITS[word] for word in re.split(r"[^a-z]+", part) if word in _SPLITS), None)
        if split is not None:
            return split
    return None


def _fill(record: Mapping[str, object], row: CorpusRow, *, given: str | None) -> CorpusRow:
    """Read all fields but the audio, and what else the record says; ``given`` is the id in the record."""
    start_s, duration_s = _read_span(record)
    task, text = _read_task(record), read_text(record, TEXT_KEYS)
    recording = read_text(record, RECORDING_KEYS)
    is_piece = given is None and row.id != "" and start_s > 0.0
    return CorpusRow(
        id=given or _piece_id(row.id, start_s=start_s, task=task),
        audio=row.audio,
        text="" if text is None and any(record.get(key) == "" for key in TEXT_KEYS) else text,
        start_s=start_s,
        duration_s=duration_s,
        language=language_code(read_text(record, LANGUAGE_KEYS)),
        task=task,
        speaker=read_text(record, SPEAKER_KEYS),
        recording=row.id if recording is None and is_piece else recording,
        split=_read_split(record) or row.split,
        columns=further_columns(record),
    )


def _piece_id(row_id: str, *, start_s: float, task: Task | None) -> str:
    if not row_id:
        return ""
    start = f"@{start_s:010.3f}" if start_s > 0.0 else ""  # fixed width, so that ids sort in the order of the pieces
    return row_id + start + ("+translate" if task == "translate" else "")


def _id_of(record: Mapping[str, object]) -> str | None:
    """Return the id of a faulty record; None if the id itself is faulty or missing."""
    try:
        return read_text(record, ID_KEYS)
    except (TypeError, ValueError):
        return None


def _first(record: Mapping[str, object], keys: tuple[str, ...]) -> object | None:
    return next((record[key] for key in keys if record.get(key) not in (None, "")), None)


def _read_span(record: Mapping[str, object]) -> tuple[float, float | None]:
    """Read start and duration; NeMo's keys count only beside its ``audio_filepath``, being ambiguous elsewhere."""
    keys = zip(TIME_KEYS, _NEMO_TIME_KEYS if "audio_filepath" in record else TIME_KEYS, strict=True)
    start_s, duration_s, end_s = (_read_seconds(record, pair) for pair in keys)
    start_s = start_s or 0.0
    if end_s is not None and end_s <= start_s:
        raise ValueError(f"ends at {end_s:g} s, no later than it starts")
    if duration_s is None and end_s is not None:
        duration_s = end_s - start_s
    return start_s, duration_s


def _read_seconds(record: Mapping[str, object], keys: tuple[str, ...]) -> float | None:
    key = next((key for key in keys if record.get(key) not in (None, "")), None)
    if key is None:
        return None
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{key} is {type(value).__name__}, not a number")
    seconds = float(value)
    if not 0.0 <= seconds < 1e9:  # also refuses NaN
        raise ValueError(f"{key} is {value}, not a time in seconds")
    return seconds


def _read_task(record: Mapping[str, object]) -> Task | None:
    named, target = read_text(record, TASK_KEYS), language_code(read_text(record, ("target_lang",)))
    task = _TASKS.get(named.strip().lower()) if named is not None else None
    if named is not None and task is None:
        raise ValueError(f"task is {named!r}, not transcribe or translate")
    if task is None and target is not None:
        source = language_code(read_text(record, LANGUAGE_KEYS))
        task = "translate" if source not in (None, target) else "transcribe"
    if task == "translate" and target not in (None, "en"):
        raise ValueError(f"target_lang is {target!r}; Whisper translates into English only")
    return task


def _read_split(record: Mapping[str, object]) -> Split | None:
    declared = read_text(record, ("split",))
    if declared is None:
        return None
    split = _SPLITS.get(declared.strip().lower())
    if split is None:
        raise ValueError(f"split is {declared!r}, not train, validation or test")
    return split
