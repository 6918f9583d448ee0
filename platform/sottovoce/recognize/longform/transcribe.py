"""Transcribe a recording of any length with a recognizer in this process."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from sottovoce.audio.decode import read_pcm
from sottovoce.recognize.longform.algorithms import build_reader
from sottovoce.recognize.longform.options import TRANSCRIBE_OPTIONS, Decoding, LongFormOptions
from sottovoce.recognize.longform.recording import Recording
from sottovoce.recognize.longform.segment import Segment, Transcript
from sottovoce.recognize.longform.window import UNHEARD_LANGUAGE, Reader, WindowRequest
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import DecodeOptions, Waveform

_BATCH_SIZE = 8


def transcribe(
    recognizer: Recognizer,
    audio: str | Path | Waveform,
    *,
    long_form: LongFormOptions | None = None,
    batch_size: int = _BATCH_SIZE,
    show_progress: bool = False,
    **decoding: Unpack[Decoding],
) -> Transcript:
    """Transcribe a recording of any length: the ``transcribe`` of every engine.

    Args:
        recognizer: the engine.
        audio: a file or URI of any format, held in memory as 16-bit PCM; or (S,) float32 in [-1, 1], 16 000 Hz.
        long_form: how a recording longer than one window is cut; the defaults of ``LongFormOptions`` if None.
        batch_size: windows decoded at once, if the algorithm has several ready.
        show_progress: show a progress bar.
        decoding: ``language``, ``prompt``, ``word_timestamps`` and more; see ``Decoding``.

    Raises:
        FileNotFoundError: no such file.
        AudioError: audio that cannot be used.
        LanguageError: a language the model does not know.
        CheckpointError, WordTimesUnavailableError: word times that this model or engine does not support.
    """
    recording = Recording(read_pcm(audio) if isinstance(audio, str | Path) else audio)
    return transcribe_recording(
        recognizer,
        recording,
        replace(TRANSCRIBE_OPTIONS, **decoding),
        long_form or LongFormOptions(),
        batch_size=batch_size,
        show_progress=show_progress,
    )


def transcribe_recording(
    recognizer: Recognizer,
    recording: Recording,
    options: DecodeOptions,
    long_form: LongFormOptions,
    *,
    batch_size: int = _BATCH_SIZE,
    show_progress: bool = False,
) -> Transcript:
    """Transcribe a decoded recording.

    Raises:
        LanguageError: a language the model does not know.
        CheckpointError, WordTimesUnavailableError: word times that this model or engine does not support.
    """
    context = recognizer.context
    reader = build_reader(recording, options, long_form, min_window_s=context.min_s, max_window_s=context.max_s)
    segments = decode_windows(recognizer, recording, reader, batch_size=batch_size)
    shown = tuple(_with_bar(segments, recording.duration_s) if show_progress else segments)
    return Transcript(duration_s=recording.duration_s, language=reader.language or UNHEARD_LANGUAGE, segments=shown)


def decode_windows(
    recognizer: Recognizer, recording: Recording, reader: Reader, *, batch_size: int
) -> Iterator[Segment]:
    """Decode the windows of a reader, and yield segments as soon as they are complete.

    Raises:
        LanguageError: a language the model does not know.
        CheckpointError, WordTimesUnavailableError: word times that this model or engine does not support.
    """
    while batch := _next_windows(reader, batch_size):
        waveforms = [recording.waveform(request.start, request.end) for request in batch]
        results = recognizer.recognize(waveforms, [request.options for request in batch])
        for request, result in zip(batch, results, strict=True):
            yield from reader.take(request, result)


def _next_windows(reader: Reader, batch_size: int) -> list[WindowRequest]:
    batch: list[WindowRequest] = []
    while len(batch) < batch_size and (request := reader.next_window()) is not None:
        batch.append(request)
    return batch


def _with_bar(segments: Iterator[Segment], duration_s: float) -> Iterator[Segment]:
    """Show how many seconds of the recording are transcribed."""
    from rich.progress import Progress  # imported here: most callers show no bar

    with Progress() as progress:
        task = progress.add_task("transcribing", total=duration_s)
        for segment in segments:
            progress.update(task, completed=segment.end_s)
            yield segment
        progress.update(task, completed=duration_s)
